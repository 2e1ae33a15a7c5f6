//! Randomness as an argument: this crate never makes its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A source of random bytes. Outside of tests it must be the operating system's: what is made from it (stream ids, nonces,
/// resources, SM-IDs) is guessed by nobody only if the bytes are.
pub trait Random {
    /// Fills `bytes` completely.
    fn fill(&mut self, bytes: &mut [u8]);
}

impl<F: FnMut(&mut [u8])> Random for F {
    fn fill(&mut self, bytes: &mut [u8]) {
        self(bytes);
    }
}

/// A token nobody guesses: 144 random bits as 24 characters of the base64url alphabet, which are good in XML attributes,
/// resourceparts and SCRAM nonces alike.
pub fn token(random: &mut dyn Random) -> String {
    let mut bytes = [0; 18];
    random.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Random;

    /// Bytes that are the same in every run and differ from call to call (SplitMix64).
    pub(crate) struct Seeded(pub(crate) u64);

    impl Random for Seeded {
        fn fill(&mut self, bytes: &mut [u8]) {
            for chunk in bytes.chunks_mut(8) {
                self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.0;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                chunk.copy_from_slice(&z.to_be_bytes()[..chunk.len()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Seeded;
    use super::token;

    #[test]
    fn tokens_are_24_url_safe_characters_and_differ() {
        let random = &mut Seeded(1);
        let (one, two) = (token(random), token(random));
        assert_ne!(one, two);
        for token in [one, two] {
            assert_eq!(token.len(), 24);
            assert!(
                token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            );
        }
    }
}
