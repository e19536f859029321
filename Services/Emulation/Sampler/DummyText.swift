/// What an emulated model says: a text that says so, one byte a token, from a place that the seed decides.
public enum DummyText {
    private static let bytes = Array(
        """
        This is dummy text: the model that was asked is emulated, its weights are not here, and only the time that its \
        answer takes is that of the real deployment. 
        """.utf8)

    /// The token at `position` of an answer with `seed`: the same for the same two.
    public static func token(seed: UInt64, position: UInt64) -> UInt32 {
        let start = (seed &* 0x9E37_79B9_7F4A_7C15) >> 33
        return UInt32(bytes[Int((start &+ position) % UInt64(bytes.count))])
    }
}
