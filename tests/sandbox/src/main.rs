//! The demo: `nutgate-sandbox` or `nutgate-sandbox demo`.

use std::process::ExitCode;

use nutgate_sandbox::demo::{run, say};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() && arguments != ["demo"] {
        say("usage: nutgate-sandbox [demo]");
        return ExitCode::from(2);
    }
    match run().await {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("demo: {error}"));
            ExitCode::FAILURE
        }
    }
}
