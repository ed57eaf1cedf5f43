//! What programs of tokio do: many tasks on many threads, over sockets, timers and channels.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
#[tokio::main(flavor = "multi_thread", worker_threads = 4)]
async fn main() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                loop {
                    let count = stream.read(&mut buffer).await.unwrap();
                    if count == 0 {
                        break;
                    }
                    stream.write_all(&buffer[..count]).await.unwrap();
                }
            });
        }
    });
    let mut tasks = Vec::new();
    for index in 0..20u32 {
        tasks.push(tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut total = 0;
            for round in 0..10u32 {
                let message = format!("{index}-{round}");
                stream.write_all(message.as_bytes()).await.unwrap();
                let mut buffer = vec![0; message.len()];
                stream.read_exact(&mut buffer).await.unwrap();
                assert_eq!(buffer, message.as_bytes());
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                total += buffer.len();
            }
            total
        }));
    }
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    let (tx, mut rx) = tokio::sync::mpsc::channel(4);
    for i in 0..10 {
        let tx = tx.clone();
        tokio::task::spawn_blocking(move || {
            tx.blocking_send(i).unwrap();
        });
    }
    drop(tx);
    let mut count = 0;
    while let Some(i) = rx.recv().await {
        count += i;
    }
    let mut input = String::new();
    tokio::io::stdin().read_to_string(&mut input).await.unwrap();
    println!("{sum} {count} {input}");
}
