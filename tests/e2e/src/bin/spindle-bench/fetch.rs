//! CPU time of the agent process for a FetchX509SVID and for a FetchJWTSVID call that finds everything ready.
//!
//! A call opens a stream on one kept connection, reads the first message and closes; or asks for a token that the agent
//! has. The caller is attested each time, as for any call.

use anyhow::Result;
use spindle_e2e::{jwt_svids, next, svid_stream};

use crate::trust_domain::Agent;
use crate::yardstick::Yardstick;

/// Calls in a turn.
const CALLS: u32 = 1000;

/// Calls and prints.
pub(crate) async fn measure(agent: &Agent, yardstick: &Yardstick) -> Result<()> {
    let channel = agent.connect().await?;
    let cost = yardstick
        .cost(&agent.process, async || {
            for _ in 0..CALLS {
                next(&mut svid_stream(channel.clone()).await?).await?;
            }
            Ok(CALLS)
        })
        .await?;
    cost.print("agent: CPU per warm FetchX509SVID, one kept connection");
    let cost = yardstick
        .cost(&agent.process, async || {
            for _ in 0..CALLS {
                jwt_svids(channel.clone(), &["bench"]).await?;
            }
            Ok(CALLS)
        })
        .await?;
    cost.print("agent: CPU per warm FetchJWTSVID, one kept connection");
    Ok(())
}
