//! A fixed port in front of a server that comes and goes, so that no test depends on taking a port twice.

use std::net::SocketAddr;

use spindle_runtime::TaskSet;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections while there is a server; closes them, and all that are open, while there is none.
pub(crate) struct Gate {
    pub(crate) addr: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    /// How many connections were led to a server.
    pub(crate) led: watch::Sender<u32>,
    _tasks: TaskSet,
}

impl Gate {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let target = watch::Sender::new(None);
        let (seen, mut tasks) = (target.subscribe(), TaskSet::new());
        let led = watch::Sender::new(0);
        let count = led.clone();
        tasks.spawn_infallible("gate", async move {
            let mut connections = TaskSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += u32::from(seen.borrow().is_some()));
                connections.spawn_infallible("connection", forward(stream, seen.clone()));
            }
        });
        Self { addr, target, led, _tasks: tasks }
    }

    pub(crate) fn lead_to(&self, target: Option<SocketAddr>) {
        self.target.send_replace(target);
    }
}

async fn forward(mut client: TcpStream, mut target: watch::Receiver<Option<SocketAddr>>) {
    let Some(addr) = *target.borrow_and_update() else { return };
    let Ok(mut server) = TcpStream::connect(addr).await else { return };
    // Either way the connection is over.
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = target.changed() => {}
    }
}
