//! What Cloud Hypervisor does with a VFIO device's state: the whole of it in memory, as base64 in
//! the JSON of its snapshot, in one write; the target parses the JSON and writes the state.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Peer;
use super::file::DataFd;

/// How much is read at once.
const READ_BYTES: usize = 1 << 20;

/// The peer.
pub(crate) struct Snapshot;

/// What travels.
#[derive(Serialize, Deserialize)]
struct Tree {
    devices: Vec<Node>,
}

#[derive(Serialize, Deserialize)]
struct Node {
    id: String,
    state: String,
}

impl Peer for Snapshot {
    fn send(&self, devices: &[DataFd<'_>], mut stream: &TcpStream) -> io::Result<u64> {
        let mut tree = Tree { devices: Vec::new() };
        for (index, data) in devices.iter().enumerate() {
            let state = read_to_end(data)?;
            tree.devices.push(Node { id: format!("vfio{index}"), state: STANDARD.encode(state) });
        }
        let json = serde_json::to_vec(&tree)?;
        stream.write_all(&(json.len() as u64).to_le_bytes())?;
        stream.write_all(&json)?;
        Ok(8 + json.len() as u64)
    }

    fn receive(&self, devices: &[DataFd<'_>], mut stream: &TcpStream) -> io::Result<u64> {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let mut json = vec![0; u64::from_le_bytes(length) as usize];
        stream.read_exact(&mut json)?;
        let tree: Tree = serde_json::from_slice(&json)?;
        if tree.devices.len() != devices.len() {
            return Err(io::Error::other("another number of devices"));
        }
        for (node, data) in tree.devices.iter().zip(devices) {
            let state = STANDARD.decode(&node.state).map_err(io::Error::other)?;
            data.write_all(&state)?;
        }
        Ok(8 + json.len() as u64)
    }
}

fn read_to_end(data: &DataFd<'_>) -> io::Result<Vec<u8>> {
    let mut state = Vec::new();
    let mut length = 0;
    loop {
        if state.len() - length < READ_BYTES {
            // Doubles, as `Read::read_to_end` does.
            state.resize((state.len() * 2).max(4 * READ_BYTES), 0);
        }
        match data.read(&mut state[length..length + READ_BYTES])? {
            0 => break,
            count => length += count,
        }
    }
    state.truncate(length);
    Ok(state)
}
