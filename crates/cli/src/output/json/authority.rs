//! Answers of the LocalAuthority service.

use serde_json::Value;
use spindle_proto::spire::api::server::localauthority::v1 as wire;

use super::{ToJson, long, object, some};

impl ToJson for wire::AuthorityState {
    fn to_json(&self) -> Value {
        object([
            ("authority_id", some(self.authority_id.clone())),
            ("expires_at", long(self.expires_at)),
            ("upstream_authority_subject_key_id", some(self.upstream_authority_subject_key_id.clone())),
        ])
    }
}

macro_rules! one_root {
    ($($response:ident),+) => {
        $(impl ToJson for wire::$response {
            fn to_json(&self) -> Value {
                object([("upstream_authority_subject_key_id", some(self.upstream_authority_subject_key_id.clone()))])
            }
        })+
    };
}
one_root!(TaintX509UpstreamAuthorityResponse, RevokeX509UpstreamAuthorityResponse);
