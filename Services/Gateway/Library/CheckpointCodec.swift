import Checkpoint
import Foundation
import GatewayCore
import Tokenization
import WireProtocol

/// A tokenizer as the completion engine uses it.
struct CheckpointCodec: TextCodec {
    private let tokenizer: any TokenCoding
    /// Sentences about what the tokenizer's files say and is not used.
    let notes: [String]

    /// `tokenizer.json` if the folder has one; bytes when asked for; nil otherwise, and then only token ids are served.
    static func load(_ checkpoint: Checkpoint, usesBytes: Bool) throws -> CheckpointCodec? {
        let file = checkpoint.directory.appendingPathComponent("tokenizer.json")
        if let tokenizer = try Tokenizer.ifThere(file) {
            return CheckpointCodec(tokenizer: tokenizer, notes: tokenizer.notes)
        }
        return usesBytes ? bytes : nil
    }

    /// Bytes, whatever the vocabulary is.
    static let bytes = CheckpointCodec(tokenizer: ByteTokenizer(), notes: [])

    func encode(_ text: String, addingSpecialTokens: Bool) throws -> [UInt32] {
        try tokenizer.encode(text, addingSpecialTokens: addingSpecialTokens)
    }

    func encode(_ conversation: [GenerateRequest.ChatTurn], thinking: Bool) throws -> [UInt32] {
        let messages = conversation.map { turn in
            ChatMessage(ChatMessage.Role(rawValue: turn.role) ?? .user, turn.content)
        }
        return try tokenizer.encode(ChatFormat.pieces(messages: messages, thinking: thinking))
    }

    func bytes(of id: UInt32) -> [UInt8]? { tokenizer.tokenBytes(id) }

    func isSpecial(_ id: UInt32) -> Bool { tokenizer.isSpecial(id) }

    func makeDecoder() -> any TextDecoder {
        CheckpointDecoder(detokenizer: IncrementalDetokenizer(tokenizer, skipSpecial: true))
    }
}

private struct CheckpointDecoder: TextDecoder {
    var detokenizer: IncrementalDetokenizer

    mutating func append(_ id: UInt32) -> String { detokenizer.append(id) ?? "" }

    mutating func flush() -> String { detokenizer.flush() }
}
