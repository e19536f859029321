import GatewayCore
import WireProtocol

/// How a gateway turns text into token ids and back; nil members when the checkpoint has no tokenizer.
public protocol TextCodec: Sendable {
    /// Token ids of a text, with those around it that the checkpoint adds to a prompt if asked for; throws with a
    /// sentence when it cannot be tokenized.
    func encode(_ text: String, addingSpecialTokens: Bool) throws -> [UInt32]
    /// Token ids of a conversation in the model's chat format, with the assistant's turn opened at the end and asked to think
    /// first or not. What is said in it never becomes a token that marks a turn, nor a special one.
    func encode(_ conversation: [GenerateRequest.ChatTurn], thinking: Bool) throws -> [UInt32]
    /// The bytes an id stands for, nil when it stands for nothing.
    func bytes(of id: UInt32) -> [UInt8]?
    /// True for ids that are no text, such as the end of a turn.
    func isSpecial(_ id: UInt32) -> Bool
    /// A decoder for one stream.
    func makeDecoder() -> any TextDecoder
}
