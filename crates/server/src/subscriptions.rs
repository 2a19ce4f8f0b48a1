//! Who is connected and what they have not been told yet.
//!
//! A change is routed only to the agents it concerns: upwards from each touched entry to the agents above it. Each
//! subscription holds one merged set of news, never a queue, so a slow reader costs no memory and gets one delta.
//! Routing runs on the store's owner thread and touches no entry set; the stream task computes the delta.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use spindle_spiffe_core::{EntryId, Selectors, SpiffeId};
use tokio::sync::Notify;

use crate::directory::{Ancestor, Ancestors, Directory, EntryRow, Touched, View, moves_others};

/// Beyond so many changed entries a subscription compares its whole set instead of listing them.
const NEWS_ENTRIES_MAX: usize = 10_000;

/// What an agent has not been told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Entries that may have changed for it.
    pub(crate) entries: BTreeSet<EntryId>,
    /// Its whole set has to be compared.
    pub(crate) everything: bool,
    /// A bundle changed.
    pub(crate) bundles: bool,
    /// Its own row changed: ban, eviction, renewal.
    pub(crate) standing: bool,
}

impl News {
    fn add(&mut self, more: Self) {
        self.entries.extend(more.entries);
        self.everything |= more.everything;
        self.bundles |= more.bundles;
        self.standing |= more.standing;
        if self.entries.len() > NEWS_ENTRIES_MAX {
            self.entries.clear();
            self.everything = true;
        }
    }
}

/// News that waits, and the view that holds all of it and nothing later that concerns the agent. A newer view may hold
/// changes that have not been routed yet; whoever took that one's revision for what the agent was told would lose them.
#[derive(Debug)]
struct Waiting {
    news: News,
    view: Arc<View>,
}

/// One connected agent.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) agent: SpiffeId,
    selectors: Selectors,
    waiting: Mutex<Option<Waiting>>,
    wake: Notify,
    acknowledged: AtomicU64,
}

/// All connected agents. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Subscriptions(Arc<Mutex<HashMap<u64, Arc<Subscription>>>>);

/// Removes its subscription when dropped.
pub(crate) struct Subscribed {
    all: Subscriptions,
    number: u64,
    pub(crate) subscription: Arc<Subscription>,
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Subscriptions {
    /// An empty set that hears of every change of `directory`.
    pub(crate) fn of(directory: &Directory) -> Self {
        let subscriptions = Self::default();
        let router = subscriptions.clone();
        directory.listen(Box::new(move |view, touched| router.route(view, touched)));
        subscriptions
    }

    /// Registers a stream of `agent`, who showed `selectors` when it attested.
    pub(crate) fn add(&self, agent: SpiffeId, selectors: Selectors) -> Subscribed {
        let subscription = Arc::new(Subscription {
            agent,
            selectors,
            waiting: Mutex::default(),
            wake: Notify::new(),
            acknowledged: AtomicU64::new(0),
        });
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, subscription.clone());
        Subscribed { all: self.clone(), number, subscription }
    }

    /// How many streams are open.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether every connected agent has acknowledged `revision` or a later one.
    pub(crate) fn all_have(&self, revision: u64) -> bool {
        self.lock().values().all(|one| one.acknowledged.load(Ordering::Acquire) >= revision)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Subscription>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Each agent is told of the whole change at once: who took half of it would take the view's revision for all of it.
    fn route(&self, view: &Arc<View>, touched: &Touched) {
        let connected = self.lock();
        if connected.is_empty() {
            return;
        }
        let mut pieces: HashMap<u64, News> = HashMap::new();
        for (old, new) in &touched.entries {
            for row in old.iter().chain(new) {
                route_entry(&connected, view, row, &mut pieces);
            }
        }
        for (number, one) in connected.iter() {
            let standing = touched.agents.iter().find(|agent| agent.spiffe_id == one.agent);
            if let Some(agent) = standing {
                let news = pieces.entry(*number).or_default();
                news.standing = true;
                news.everything |= agent.moved;
            }
            if !touched.bundles.is_empty() {
                pieces.entry(*number).or_default().bundles = true;
            }
            if let Some(news) = pieces.remove(number) {
                one.tell(view, news);
            }
        }
    }
}

/// Adds one row to the news of those it concerns, by the numbers of their subscriptions.
fn route_entry(
    connected: &HashMap<u64, Arc<Subscription>>,
    view: &View,
    row: &EntryRow,
    pieces: &mut HashMap<u64, News>,
) {
    let everything = moves_others(view, &row.entry);
    let mut add = |number: u64| {
        let news = pieces.entry(number).or_default();
        news.everything |= everything;
        news.entries.insert(row.entry.id.clone());
    };
    if row.entry.parent_id == *view.server_id() {
        let concerned = |one: &Subscription| row.entry.selectors.is_subset_of(&one.selectors);
        connected.iter().filter(|(_, one)| concerned(one)).for_each(|(number, _)| add(*number));
        return;
    }
    for ancestor in Ancestors::of(view, &row.entry) {
        let concerned = |one: &Subscription| match &ancestor {
            Ancestor::Parent(id) => one.agent == *id,
            Ancestor::Alias(selectors) => selectors.is_subset_of(&one.selectors),
        };
        connected.iter().filter(|(_, one)| concerned(one)).for_each(|(number, _)| add(*number));
    }
}

impl Subscription {
    fn tell(&self, view: &Arc<View>, more: News) {
        let mut waiting = self.waiting();
        let mut news = waiting.take().map(|waiting| waiting.news).unwrap_or_default();
        news.add(more);
        *waiting = Some(Waiting { news, view: view.clone() });
        drop(waiting);
        self.wake.notify_one();
    }

    /// Waits until there is news and takes all of it, with the view to compute from. Cancel-safe: news is taken only when
    /// it is returned.
    pub(crate) async fn news(&self) -> (News, Arc<View>) {
        loop {
            if let Some(Waiting { news, view }) = self.waiting().take() {
                return (news, view);
            }
            self.wake.notified().await;
        }
    }

    /// Waits until the agent's own row has changed, once for each time; other news stays. Cancel-safe.
    pub(crate) async fn own_row_changed(&self) {
        loop {
            if let Some(waiting) = self.waiting().as_mut()
                && std::mem::take(&mut waiting.news.standing)
            {
                return;
            }
            self.wake.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The agent has applied everything up to `revision`.
    pub(crate) fn acknowledge(&self, revision: u64) {
        self.acknowledged.fetch_max(revision, Ordering::AcqRel);
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.all.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures_util::FutureExt;
    use spindle_proto::spire::api::types;
    use spindle_spiffe_core::RegistrationEntry;

    use super::*;
    use crate::entries;
    use crate::fixtures::{agent, create, directory, entry, foreign_bundle, id, selectors, trust_domain};

    async fn put(directory: &Directory, name: &str, parent: &str, path: &str, selectors: &[&str]) {
        create(directory, types::Entry { id: name.into(), ..entry(&id(parent), path, selectors) }).await;
    }

    /// What there is to tell now; none when there is nothing.
    fn taken(subscribed: &Subscribed) -> Option<News> {
        subscribed.subscription.news().now_or_never().map(|(news, _)| news)
    }

    /// News of these entries alone.
    fn of(names: &[&str]) -> Option<News> {
        let entries = names.iter().map(|name| name.parse().unwrap()).collect();
        Some(News { entries, ..News::default() })
    }

    #[tokio::test]
    async fn what_happens_before_a_reader_looks_is_one_piece_of_news() {
        let directory = directory();
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        assert_eq!(taken(&one), None);
        put(&directory, "a", "/spire/agent/x/1", "/a", &["s:1"]).await;
        put(&directory, "b", "/spire/agent/x/1", "/b", &["s:1"]).await;
        entries::delete(&directory, &"a".parse().unwrap(), &entries::anything).await.unwrap();
        assert_eq!(taken(&one), of(&["a", "b"]));
        assert_eq!(taken(&one), None, "news is told once");
    }

    #[tokio::test]
    async fn news_comes_with_a_view_that_holds_it_and_nothing_unrouted() {
        let directory = directory();
        let (halt, halted) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        // Runs before the router: the view of the second change is there already, and nobody has been told of it.
        directory.listen(Box::new(move |view, _| {
            if view.entry_count() == 2 {
                halt.send(()).unwrap();
                gone.lock().unwrap().recv().unwrap();
            }
        }));
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        put(&directory, "a", "/spire/agent/x/1", "/a", &["s:1"]).await;
        let first = directory.view().revision;
        let wire = types::Entry { id: "b".into(), ..entry(&id("/spire/agent/x/1"), "/b", &["s:1"]) };
        let second = tokio::join!(create(&directory, wire), async {
            tokio::task::yield_now().await;
            halted.recv().unwrap();
            assert_eq!(directory.view().revision, first + 1);
            let (news, view) = one.subscription.news().now_or_never().unwrap();
            assert_eq!((Some(news), view.revision), (of(&["a"]), first));
            go.send(()).unwrap();
        });
        let (news, view) = one.subscription.news().now_or_never().unwrap();
        assert_eq!((Some(news), view.revision), (of(&["b"]), second.0.revision));
    }

    #[tokio::test]
    async fn a_change_of_its_own_row_is_told_apart_from_other_news() {
        let directory = directory();
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        let changed = || one.subscription.own_row_changed().now_or_never();
        put(&directory, "a", "/spire/agent/x/1", "/a", &["s:1"]).await;
        assert_eq!(changed(), None);
        agent(&directory, "/spire/agent/x/1", &[]).await;
        assert_eq!((changed(), changed()), (Some(()), None));
        let rest = News { everything: true, ..of(&["a"]).unwrap() };
        assert_eq!(taken(&one), Some(rest), "the rest is still to be told");
    }

    #[tokio::test]
    async fn only_those_above_an_entry_are_told() {
        let directory = directory();
        put(&directory, "parent", "/spire/agent/x/1", "/parent", &["s:1"]).await;
        put(&directory, "alias", "/spire/server", "/group", &["n:a"]).await;
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&["n:b"]));
        let grouped = subscriptions.add(id("/spire/agent/x/2"), selectors(&["n:a", "n:b"]));
        put(&directory, "nested", "/parent", "/nested", &["s:1"]).await;
        assert_eq!((taken(&one), taken(&grouped)), (of(&["nested"]), None));
        put(&directory, "shared", "/group", "/shared", &["s:1"]).await;
        assert_eq!((taken(&one), taken(&grouped)), (None, of(&["shared"])));
        put(&directory, "orphan", "/nobody", "/orphan", &["s:1"]).await;
        assert_eq!((taken(&one), taken(&grouped)), (None, None));
    }

    #[tokio::test]
    async fn a_change_that_moves_others_has_the_whole_set_compared() {
        let directory = directory();
        put(&directory, "child", "/parent", "/child", &["s:1"]).await;
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&["n:a"]));
        put(&directory, "parent", "/spire/agent/x/1", "/parent", &["s:1"]).await;
        assert!(taken(&one).is_some_and(|news| news.everything));
        put(&directory, "alias", "/spire/server", "/parent", &["n:a"]).await;
        assert!(taken(&one).is_some_and(|news| news.everything));
        put(&directory, "other-alias", "/spire/server", "/parent", &["n:other"]).await;
        assert_eq!(taken(&one), None, "an alias of other nodes");
    }

    #[tokio::test]
    async fn a_reader_that_takes_news_as_it_comes_never_gets_half_a_change() {
        let directory = directory();
        put(&directory, "child", "/parent", "/child", &["s:1"]).await;
        put(&directory, "parent", "/spire/agent/x/1", "/parent", &["s:1"]).await;
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        let (subscription, ended) = (one.subscription.clone(), Arc::new(AtomicBool::new(false)));
        let is_over = ended.clone();
        let reader = std::thread::spawn(move || {
            let mut pieces = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                pieces.extend(subscription.news().now_or_never().map(|(news, _)| news.everything));
            }
            pieces
        });
        let (trust_domain, parent) = (trust_domain(), "parent".parse().unwrap());
        // One row of the two, the old or the new, is the children's parent: the change moves them.
        for path in ["/other", "/parent"].into_iter().cycle().take(1000) {
            let rename = |old: &RegistrationEntry| RegistrationEntry { spiffe_id: id(path), ..old.clone() };
            entries::update(&directory, &trust_domain, &parent, rename, &entries::anything).await.unwrap();
        }
        ended.store(true, Ordering::Release);
        let pieces = reader.join().unwrap();
        assert!(!pieces.is_empty() && pieces.iter().all(|everything| *everything));
    }

    #[tokio::test]
    async fn an_agents_own_row_and_every_bundle_are_news() {
        let directory = directory();
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        agent(&directory, "/spire/agent/x/2", &[]).await;
        assert_eq!(taken(&one), None);
        agent(&directory, "/spire/agent/x/1", &[]).await;
        assert_eq!(taken(&one), Some(News { standing: true, everything: true, ..News::default() }));
        agent(&directory, "/spire/agent/x/1", &[]).await;
        assert_eq!(taken(&one), Some(News { standing: true, ..News::default() }), "its set is the same");
        foreign_bundle(&directory, "other.example", 1).await;
        assert_eq!(taken(&one), Some(News { bundles: true, ..News::default() }));
    }

    #[tokio::test]
    async fn too_much_to_list_becomes_a_comparison_of_the_whole_set() {
        let directory = directory();
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        let (directory, trust_domain) = (&directory, &trust_domain());
        let wanted = (0..=NEWS_ENTRIES_MAX).map(|n| {
            let wire = entry(&id("/spire/agent/x/1"), &format!("/w{n}"), &["s:1"]);
            let draft = spindle_proto::convert::entry_from_proto(&wire, || format!("e{n}").parse().unwrap());
            entries::create(directory, trust_domain, draft.unwrap(), &entries::anything)
        });
        futures_util::future::join_all(wanted.collect::<Vec<_>>()).await;
        assert_eq!(taken(&one), Some(News { everything: true, ..News::default() }));
    }

    #[tokio::test]
    async fn a_reader_that_goes_is_forgotten() {
        let directory = directory();
        let subscriptions = Subscriptions::of(&directory);
        let one = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        let two = subscriptions.add(id("/spire/agent/x/1"), selectors(&[]));
        assert_eq!(subscriptions.len(), 2);
        one.subscription.acknowledge(5);
        assert!(!subscriptions.all_have(5));
        drop(two);
        assert!(subscriptions.all_have(5) && !subscriptions.all_have(6));
        one.subscription.acknowledge(3);
        assert!(subscriptions.all_have(5), "an acknowledgement is not taken back");
        drop(one);
        assert!(subscriptions.all_have(u64::MAX) && subscriptions.len() == 0, "nobody is waited for");
    }
}
