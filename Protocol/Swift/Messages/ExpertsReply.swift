/// Metadata of the reply to an experts call; its body is the rows.
public struct ExpertsReply: Sendable, Equatable {
    /// Time the call takes on the slice the service simulates, picoseconds; 0 when it is not known.
    public var simulatedPicoseconds: UInt64

    /// A reply.
    public init(simulatedPicoseconds: UInt64) { self.simulatedPicoseconds = simulatedPicoseconds }

    /// Metadata of the response frame: nothing when there is no time to tell.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        if simulatedPicoseconds > 0 { writer.put(1, simulatedPicoseconds) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...1)
        simulatedPicoseconds = try reader.integer(1, "simulated picoseconds", fallback: 0)
    }
}
