//! The node attestor `x509pop` among the others: lends the rules in `spindle-attest` the time, a nonce and the bundle.

use std::net::IpAddr;

use spindle_attest::x509pop::{Circumstances, NAME, Pending, Settings, Verifier};
use spindle_spiffe_core::{Entropy, X509Bundle};

use super::AttestFault;
use super::node::{Conversation, NodeAttestor, NodeAttributes, Round};
use crate::context::Context;

pub(super) struct X509Pop(Verifier);

impl X509Pop {
    pub(super) fn new(settings: Settings) -> Self {
        Self(Verifier::new(settings))
    }
}

impl NodeAttestor for X509Pop {
    fn name(&self) -> &'static str {
        NAME
    }

    fn begin(
        &self,
        context: &Context,
        payload: &[u8],
        client_ip: Option<IpAddr>,
    ) -> Result<Round, AttestFault> {
        let trust_domain = &context.trust_domain;
        let view = context.directory.view();
        let own_bundle = view.bundle(trust_domain).map(|bundle| bundle.x509_bundle());
        let own_bundle = &own_bundle.unwrap_or_else(|| X509Bundle::empty(trust_domain.clone()));
        let (now, mut nonce) = (context.clock.now(), [0; _]);
        context.entropy.fill(&mut nonce);
        let circumstances = Circumstances { trust_domain, own_bundle, client_ip, now, nonce };
        let pending = self.0.begin(payload, &circumstances)?;
        Ok(Round::Challenge { bytes: pending.challenge(), then: Box::new(Asked(pending)) })
    }
}

struct Asked(Pending);

impl Conversation for Asked {
    fn answer(self: Box<Self>, response: &[u8]) -> Result<Round, AttestFault> {
        let node = self.0.finish(response)?;
        let (spiffe_id, selectors) = (node.spiffe_id, node.selectors);
        Ok(Round::Attested(NodeAttributes { spiffe_id, selectors, can_reattest: true }))
    }
}
