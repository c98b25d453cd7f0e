// A runtime that is a binary without any crate: one connection for each request.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;

const PATH: &str = "/2018-06-01/runtime/invocation";
const REST: &str = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";

fn ask(api: &str, request: String) -> Vec<u8> {
    let mut line = TcpStream::connect(api).unwrap();
    line.write_all(request.as_bytes()).unwrap();
    let mut heard = Vec::new();
    line.read_to_end(&mut heard).unwrap();
    heard
}

fn main() {
    let api = env::var("AWS_LAMBDA_RUNTIME_API").unwrap();
    let name = "Lambda-Runtime-Aws-Request-Id: ";
    loop {
        let heard = ask(&api, format!("GET {PATH}/next {REST}\r\n"));
        let end = heard.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&heard[..end]).to_string();
        let event = String::from_utf8_lossy(&heard[end + 4..]).to_string();
        let id = head.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        println!("Rust has {} bytes", event.len());
        if event == "\"crash\"" {
            panic!("as asked");
        }
        let answer = format!("{{\"Rust\":{event}}}");
        ask(&api, format!("POST {PATH}/{id}/response {REST}Content-Length: {}\r\n\r\n{answer}", answer.len()));
    }
}
