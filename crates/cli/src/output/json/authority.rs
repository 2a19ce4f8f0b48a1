//! Answers of the LocalAuthority service.

use serde_json::Value;
use spindle_proto::spire::api::server::localauthority::v1 as wire;

use super::{ToJson, long, message, object, some};

impl ToJson for wire::AuthorityState {
    fn to_json(&self) -> Value {
        object([
            ("authority_id", some(self.authority_id.clone())),
            ("expires_at", long(self.expires_at)),
            ("upstream_authority_subject_key_id", some(self.upstream_authority_subject_key_id.clone())),
        ])
    }
}

macro_rules! all_authorities {
    ($($response:ident),+) => {
        $(impl ToJson for wire::$response {
            fn to_json(&self) -> Value {
                let parts = [("active", &self.active), ("old", &self.old), ("prepared", &self.prepared)];
                object(parts.map(|(name, state)| (name, message(state))))
            }
        })+
    };
}
all_authorities!(GetX509AuthorityStateResponse, GetJwtAuthorityStateResponse);

macro_rules! one_authority {
    ($($response:ident: $field:ident),+) => {
        $(impl ToJson for wire::$response {
            fn to_json(&self) -> Value {
                object([(stringify!($field), message(&self.$field))])
            }
        })+
    };
}
one_authority!(
    PrepareX509AuthorityResponse: prepared_authority,
    ActivateX509AuthorityResponse: activated_authority,
    TaintX509AuthorityResponse: tainted_authority,
    RevokeX509AuthorityResponse: revoked_authority,
    PrepareJwtAuthorityResponse: prepared_authority,
    ActivateJwtAuthorityResponse: activated_authority,
    TaintJwtAuthorityResponse: tainted_authority,
    RevokeJwtAuthorityResponse: revoked_authority
);

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
