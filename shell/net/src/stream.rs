//! Any other byte stream (TLS, websocket, in-process): one task that reads, and writes when the shard has output.

use std::rc::Rc;

use hw_hub::CloseReason;
use hw_kit::ConnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::Driver;
use crate::limits::READ_BYTES;
use crate::mailbox::Duplex;

/// Serves a connection until it ends.
pub(crate) async fn serve(driver: Rc<Driver>, conn: ConnId, socket: Box<dyn Duplex>, output: Rc<Notify>) {
    let (mut reader, mut writer) = tokio::io::split(socket);
    let mut kept: Vec<u8> = Vec::new();
    let reason = loop {
        kept.reserve(READ_BYTES);
        tokio::select! {
            read = reader.read_buf(&mut kept) => match read {
                Ok(0) => break CloseReason::ClientClosed,
                Err(_) => break CloseReason::ReadError,
                Ok(_) => {
                    let mut state = driver.state.borrow_mut();
                    let state = &mut *state;
                    let now = state.clock.now();
                    let consumed = state.shard.handle_bytes(now, conn, &kept);
                    kept.drain(..consumed);
                    driver.end_round();
                }
            },
            () = output.notified() => {
                let bytes = driver.state.borrow_mut().take_output(conn);
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    break CloseReason::WriteError;
                }
                let mut state = driver.state.borrow_mut();
                state.keep(bytes);
                if let Some(reason) = state.shard.closing(conn) {
                    break reason;
                }
            }
        }
    };
    let _ = writer.shutdown().await;
    driver.closed(conn, reason);
}
