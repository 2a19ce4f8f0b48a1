//! What the registry costs with 5,000 entries in it and with 100,000: creating, listing by every filter, changing, deleting.
//!
//! Each figure stands beside the same on the smaller registry: work that is independent of its size shows 1.0, a filter that
//! looks at every entry shows about 10 and more. The entries are those of a thousand nodes, a hundred workloads on each. Start at [`measure`].

use anyhow::{Result, ensure};
use spindle_e2e::{TRUST_DOMAIN, entry, id};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::entry::v1 as api;
use spindle_proto::spire::api::types;

use crate::report::{kibibytes, line};
use crate::trust_domain::Server;
use crate::yardstick::{Cost, Yardstick};

/// Entries of the small registry and of the large one.
const SIZES: [u32; 2] = [5_000, 100_000];

/// Workloads on a node.
const PER_NODE: u32 = 100;

/// Entries in a call.
const BATCH: u32 = 500;

/// Calls in a turn, of those that return a page or less.
const LISTS: u32 = 4;

/// Measures one store and prints.
pub(crate) async fn measure(server: &Server, yardstick: &Yardstick) -> Result<()> {
    let mut registry = Registry { server, yardstick, made: 0 };
    registry.grow(SIZES[0]).await?;
    let (small, before) = (registry.costs().await?, server.process.memory()?.anonymous);
    registry.grow(SIZES[1]).await?;
    let (large, after) = (registry.costs().await?, server.process.memory()?.anonymous);
    let store = server.store.name();
    for ((what, large), (_, small)) in large.iter().zip(&small) {
        large.print_beside(&format!("registry, {store}, {}: {what}", SIZES[1]), small);
    }
    let each = after.saturating_sub(before) / u64::from(SIZES[1] - SIZES[0]);
    line(&format!("registry, {store}: memory per entry"), &kibibytes(each), "anonymous");
    Ok(())
}

/// A server with entries, numbered in the order of their making.
struct Registry<'a> {
    server: &'a Server,
    yardstick: &'a Yardstick,
    made: u32,
}

impl Registry<'_> {
    async fn grow(&mut self, size: u32) -> Result<()> {
        while self.made < size {
            self.create().await?;
        }
        Ok(())
    }

    /// Makes one batch; returns its entries as the server has them.
    async fn create(&mut self) -> Result<Vec<types::Entry>> {
        let mut batch =
            (self.made..self.made + BATCH).map(workload).collect::<Result<Vec<types::Entry>>>()?;
        let ids = self.server.admin.register_all(batch.clone()).await?;
        for (entry, id) in batch.iter_mut().zip(ids) {
            entry.id = id;
        }
        self.made += BATCH;
        Ok(batch)
    }

    /// The costs of all work at the present size, to which it returns.
    async fn costs(&mut self) -> Result<Vec<(&'static str, Cost)>> {
        let (yardstick, server) = (self.yardstick, self.server);
        let (mut costs, mut extra) = (Vec::new(), Vec::new());
        let create = yardstick
            .cost(&server.process, async || {
                extra.push(self.create().await?);
                Ok(BATCH)
            })
            .await?;
        costs.push(("create, CPU per entry", create));
        let mut turn = 0;
        let update = yardstick
            .cost(&server.process, async || {
                let batch = &mut extra[turn];
                turn += 1;
                batch.iter_mut().for_each(|entry| entry.x509_svid_ttl += 1);
                server.admin.update_all(batch.clone()).await?;
                Ok(BATCH)
            })
            .await?;
        costs.push(("update, CPU per entry", update));
        for (what, filter, expected) in filters() {
            costs.push((what, self.list(filter, expected).await?));
        }
        let delete = yardstick
            .cost(&server.process, async || {
                let batch = extra.pop().unwrap_or_default();
                server.admin.unregister_all(batch.into_iter().map(|entry| entry.id).collect()).await?;
                self.made -= BATCH;
                Ok(BATCH)
            })
            .await?;
        costs.push(("delete, CPU per entry", delete));
        Ok(costs)
    }

    /// The cost of one call that lists a page by `filter`, on which the first `expected` entries of the registry stand.
    async fn list(&self, filter: Filter, expected: usize) -> Result<Cost> {
        self.yardstick
            .cost(&self.server.process, async || {
                for _ in 0..LISTS {
                    let page_size = i32::try_from(BATCH)?;
                    let filter = Some(filter.clone());
                    let request = api::ListEntriesRequest { filter, page_size, ..Default::default() };
                    let found = self.server.admin.list(request).await?.len();
                    ensure!(found == expected, "{found} entries listed instead of {expected}");
                }
                Ok(LISTS)
            })
            .await
    }
}

/// The workload of that number.
fn workload(number: u32) -> Result<types::Entry> {
    let node = number / PER_NODE;
    let parent = id(&format!("/spire/agent/join_token/node-{node}"));
    let selectors = [format!("k8s:ns:team-{}", node % 50), format!("k8s:pod-uid:{number}")];
    let mut made = entry(&parent, &format!("/workload/{number}"), &[&selectors[0], &selectors[1]])?;
    // One of each kind that filters ask for: the first of all entries.
    if number == 0 {
        made.hint = "first".into();
        made.downstream = true;
        made.federates_with = vec![TRUST_DOMAIN.into()];
    }
    Ok(made)
}

type Filter = api::list_entries_request::Filter;

/// Every filter, and how many entries of a page it leaves.
fn filters() -> Vec<(&'static str, Filter, usize)> {
    let node = id("/spire/agent/join_token/node-3");
    let none = Filter::default;
    vec![
        ("a page of 500 entries, CPU per call", none(), 500),
        (
            "list by SPIFFE ID, CPU per call",
            Filter { by_spiffe_id: Some(spiffe_id_to_proto(&id("/workload/7"))), ..none() },
            1,
        ),
        (
            "list by parent ID, CPU per call",
            Filter { by_parent_id: Some(spiffe_id_to_proto(&node)), ..none() },
            100,
        ),
        ("list by selectors, exact, CPU per call", by_selectors(0, &["k8s:ns:team-0", "k8s:pod-uid:7"]), 1),
        ("list by selectors, subset, CPU per call", by_selectors(1, &["k8s:ns:team-0", "k8s:pod-uid:7"]), 1),
        ("list by selectors, superset, CPU per call", by_selectors(2, &["k8s:pod-uid:7"]), 1),
        ("list by selectors, any, CPU per call", by_selectors(3, &["k8s:pod-uid:7", "k8s:pod-uid:8"]), 2),
        ("list by hint, CPU per call", Filter { by_hint: Some("first".into()), ..none() }, 1),
        ("list by downstream, CPU per call", Filter { by_downstream: Some(true), ..none() }, 1),
        ("list by trust domain, CPU per call", by_trust_domain(), 1),
    ]
}

fn by_selectors(how: i32, texts: &[&str]) -> Filter {
    let selectors = texts.iter().filter_map(|text| text.split_once(':'));
    let selectors =
        selectors.map(|(kind, value)| types::Selector { r#type: kind.into(), value: value.into() }).collect();
    Filter { by_selectors: Some(types::SelectorMatch { selectors, r#match: how }), ..Filter::default() }
}

fn by_trust_domain() -> Filter {
    let trust_domains = vec![TRUST_DOMAIN.into()];
    Filter {
        by_federates_with: Some(types::FederatesWithMatch { trust_domains, r#match: 3 }),
        ..Filter::default()
    }
}
