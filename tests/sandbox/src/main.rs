//! The demo: `nutgate-sandbox` or `nutgate-sandbox demo`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() && arguments != ["demo"] {
        eprintln!("usage: nutgate-sandbox [demo]");
        return ExitCode::from(2);
    }
    match nutgate_sandbox::demo::run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}
