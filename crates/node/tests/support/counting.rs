//! A real S3 server whose reads are counted on their way to it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use storage::{S3Config, S3Keys};
use testkit::S3Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub struct Counting {
    pub server: S3Server,
    address: SocketAddr,
    gets: Arc<Mutex<Vec<String>>>,
}

impl Counting {
    pub async fn start() -> Self {
        let server = tokio::task::spawn_blocking(S3Server::start);
        let server = server.await.expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let gets = Arc::new(Mutex::new(Vec::new()));
        let upstream = server.endpoint().trim_start_matches("http://").to_owned();
        let seen = gets.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream.clone(), seen.clone()));
            }
        });
        Self {
            server,
            address,
            gets,
        }
    }

    /// The bucket, by way of the counter.
    pub fn blobs(&self) -> String {
        let bucket = S3Server::BUCKET;
        format!("s3://{bucket}/nodes?endpoint=http://{}", self.address)
    }

    pub fn config(&self) -> S3Config {
        S3Config {
            keys: Some(S3Keys {
                access_key_id: S3Server::ACCESS_KEY_ID.to_owned(),
                secret_access_key: S3Server::SECRET_ACCESS_KEY.to_owned(),
            }),
            ..S3Config::default()
        }
    }

    /// The names of the objects that were read since this was asked last, once for each read.
    pub fn take_reads(&self) -> Vec<String> {
        std::mem::take(&mut *self.gets.lock().expect("the list"))
    }
}

/// Passes a connection on; each line that asks for an object by its digest is noted.
async fn pass(client: TcpStream, upstream: String, gets: Arc<Mutex<Vec<String>>>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async {
        let (mut buffer, mut line) = (vec![0; 64 << 10], Vec::new());
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            for byte in &buffer[..count] {
                match byte {
                    b'\n' => {
                        let text = String::from_utf8_lossy(&line);
                        if text.starts_with("GET ") && text.contains("/sha256/") {
                            let path = text.split(' ').nth(1).unwrap_or_default();
                            let name = path.rsplit('/').next().unwrap_or_default();
                            gets.lock().expect("the list").push(name.to_owned());
                        }
                        line.clear();
                    }
                    // Bodies have lines of any length; requests begin within this.
                    byte if line.len() < 4096 => line.push(*byte),
                    _ => {}
                }
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        // The server has said all it will when it closes its side.
        let _closed = to_server.shutdown().await;
    };
    let replies = tokio::io::copy(&mut from_server, &mut to_client);
    let _both_ended = tokio::join!(requests, replies);
}
