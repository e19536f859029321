import Checkpoint
import Foundation
import ServiceSupport

/// Finds the tokenizer of a checkpoint folder.
enum CheckpointCodec {
    /// `tokenizer.json` if the folder has one; bytes when asked for; nil otherwise, and then only token ids are served.
    static func load(_ checkpoint: Checkpoint, usesBytes: Bool) throws -> (any TextCodec)? {
        nil
    }
}
