//! The door before real clients and raw bytes, with a small engine of its own behind it.

mod engine;
mod hostile;
mod protocol;
mod values;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use super::{PgConfig, PgDoor};
use engine::TestEngine;

/// A door that serves until it is dropped.
struct TestDoor {
    address: SocketAddr,
    engine: Arc<TestEngine>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl TestDoor {
    async fn open() -> Self {
        Self::with(PgConfig::default()).await
    }

    async fn with(config: PgConfig) -> Self {
        let engine = Arc::new(TestEngine::default());
        let door = PgDoor::bind("127.0.0.1:0", engine.clone(), config).await.expect("binds");
        let address = door.local_addr().expect("bound");
        let (stop, stopped) = watch::channel(false);
        Self { address, engine, stop, serving: tokio::spawn(door.serve(stopped)) }
    }

    async fn client(&self) -> Client {
        self.try_client().await.expect("connects")
    }

    async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        Ok(self.connect().await?.0)
    }

    /// A client, and the task that holds its socket: aborted, the client is gone.
    async fn connect(&self) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let config = format!(
            "host=127.0.0.1 port={} user=me dbname=test application_name=tests",
            self.address.port()
        );
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
        let socket = tokio::spawn(async move { drop(connection.await) });
        Ok((client, socket))
    }
}
