//! The Admin service as a program uses it, for tests that need many accounts: keys are derived once.

use std::net::Ipv4Addr;

use heronry_proto::admin::{
    ScramHash as WireHash, ScramKeySet, ScramKeys as WireKeys, UserAddRequest, UserDeleteRequest, UserListRequest,
    admin_client::AdminClient, user_add_request,
};
use heronry_xmpp::sasl::{Password, ScramHash, ScramKeys};
use tonic::{Request, Status, transport::Channel};

/// A connection to the admin port; clones share it.
#[derive(Clone)]
pub(crate) struct Accounts {
    admin: AdminClient<Channel>,
    authorization: String,
    keys: ScramKeySet,
}

impl Accounts {
    pub(crate) async fn connect(ip: Ipv4Addr, token: &str) -> Self {
        let admin = AdminClient::connect(format!("http://{ip}:5280")).await.unwrap();
        Self {
            admin,
            authorization: format!("Bearer {token}"),
            keys: keys(),
        }
    }

    pub(crate) async fn add(&mut self, jid: &str) -> Result<(), Status> {
        let credentials = Some(user_add_request::Credentials::Keys(self.keys.clone()));
        let request = self.request(UserAddRequest {
            jid: jid.to_owned(),
            credentials,
        });
        self.admin.user_add(request).await.map(drop)
    }

    pub(crate) async fn delete(&mut self, jid: &str) -> Result<(), Status> {
        let request = self.request(UserDeleteRequest { jid: jid.to_owned() });
        self.admin.user_delete(request).await.map(drop)
    }

    pub(crate) async fn list(&mut self) -> Vec<String> {
        let mut list = self
            .admin
            .user_list(self.request(UserListRequest::default()))
            .await
            .unwrap()
            .into_inner();
        let mut jids = Vec::new();
        while let Some(page) = list.message().await.unwrap() {
            jids.extend(page.users.into_iter().map(|user| user.jid));
        }
        jids
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.parse().unwrap());
        request
    }
}

/// Some keys: what deriving them costs is not what is tested.
fn keys() -> ScramKeySet {
    let keys = ScramKeys::derive(ScramHash::Sha256, &Password::new("p").unwrap(), &[7; 16], 4096).unwrap();
    let keys = WireKeys {
        hash: WireHash::Sha256.into(),
        iterations: keys.iterations(),
        salt: keys.salt().to_vec().into(),
        stored_key: keys.stored_key().to_vec().into(),
        server_key: keys.server_key().to_vec().into(),
    };
    ScramKeySet { keys: vec![keys] }
}
