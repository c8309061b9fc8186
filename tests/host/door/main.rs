//! The acceptor among strangers: whoever knocks before, between and during an honest source's
//! connections, its migration completes, and the strangers are counted.

mod crowd;
mod honest;
mod sessions;
mod strangers;
mod tls;
