//! What the operating system gives as random is drawn from a seed, on threads that ask for it. For simulations, and only there: a program that
//! links this has no secrets on such a thread.
//!
//! The standard library's hash maps draw their keys once for each thread, so the order in which they are walked differs from run to run. It
//! calls `getrandom` of the C library as a symbol that others may replace; this replaces it.

use std::{
    cell::Cell,
    ffi::{c_uint, c_void},
    mem::MaybeUninit,
};

use rustix::rand::GetRandomFlags;

thread_local! {
    /// The state of SplitMix64; `None`: the operating system is asked.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread draws from `seed`. To be called before it has made a hash map.
pub fn seed_this_thread(seed: u64) {
    STATE.set(Some(seed));
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fill(bytes: &mut [MaybeUninit<u8>], flags: c_uint) -> isize {
    let Some(mut state) = STATE.try_with(Cell::get).ok().flatten() else {
        return match rustix::rand::getrandom(bytes, GetRandomFlags::from_bits_retain(flags)) {
            Ok((given, _)) => given.len() as isize,
            Err(_) => -1,
        };
    };
    for chunk in bytes.chunks_mut(8) {
        let drawn = next(&mut state).to_be_bytes();
        chunk.iter_mut().zip(drawn).for_each(|(byte, drawn)| {
            byte.write(drawn);
        });
    }
    STATE.set(Some(state));
    bytes.len() as isize
}

/// getrandom(2).
///
/// # Safety
/// `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if buffer.is_null() || length == 0 {
        return 0;
    }
    // SAFETY: as the caller promises; any bytes are proper there.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<u8>>(), length) };
    fill(bytes, flags)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::seed_this_thread;

    /// The order in which a new thread walks a hash set.
    fn walked(seed: Option<u64>) -> Vec<u32> {
        let thread = thread::spawn(move || {
            seed.into_iter().for_each(seed_this_thread);
            (0..100).collect::<HashSet<u32>>().into_iter().collect()
        });
        thread.join().expect("no panic")
    }

    #[test]
    fn threads_of_one_seed_walk_hash_maps_in_one_order() {
        assert_eq!(walked(Some(1)), walked(Some(1)));
        assert_ne!(walked(Some(1)), walked(Some(2)));
        assert_ne!(walked(None), walked(None));
    }
}
