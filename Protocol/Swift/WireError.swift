/// A frame or message that breaks the protocol. `description` names the field and the limit.
public struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence.
    public let description: String

    /// The version of the protocol that the peer speaks, when that is not ours; it reads no other.
    public let versionOfPeer: UInt8?

    /// An error with its sentence.
    public init(_ description: String) { (self.description, versionOfPeer) = (description, nil) }

    /// A peer of another version; the sentence is for both sides.
    init(versionOfPeer: UInt8) {
        self.versionOfPeer = versionOfPeer
        description =
            "a frame of protocol version \(versionOfPeer) came to a side that speaks version \(FrameHeader.version): "
            + "both sides must have the same version, so update the older one"
    }
}
