//! A server that answers as it is told, for what no real one can be made to say on demand.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Dropping it closes everything.
pub(super) struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

/// What it says to a command, the how manieth of its kind that is; in the protocol's own words.
type Answers = fn(&str, usize) -> &'static str;

impl Fake {
    pub(super) async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let heard = asked.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, heard.clone(), answers));
            }
        });
        Self { url, asked, _serving: serving }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How often it was sent this command.
    pub(super) fn count(&self, command: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == command).count()
    }
}

async fn serve(stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, answers: Answers) {
    let mut stream = BufReader::new(stream);
    while let Some(command) = read(&mut stream).await {
        let answer = {
            let mut asked = asked.lock().unwrap();
            let before = asked.iter().filter(|earlier| **earlier == command).count();
            asked.push(command.clone());
            answers(&command, before)
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The first word of the next command.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let words = number(stream, '*').await?;
    let mut command = None;
    for _ in 0..words {
        let bytes = number(stream, '$').await?;
        let mut word = vec![0; bytes + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(bytes);
        command = command.or(String::from_utf8(word).ok());
    }
    command
}

async fn number(stream: &mut BufReader<TcpStream>, kind: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_prefix(kind)?.trim().parse().ok()
}
