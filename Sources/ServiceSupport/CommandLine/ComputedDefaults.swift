/// Sizes of an attention instance that computes, where its command line names none; an emulated one takes those of the
/// device.
public enum ComputedDefaults {
    /// Prompt tokens per step.
    public static let chunk = 512
    /// Requests that run at once.
    public static let slots = 32
    /// Tokens of KV memory.
    public static let tokens = 65536
    /// As `--help` shows the chunk.
    public static let shownChunk = "\(chunk); emulated, 2048 per rank"
    /// As `--help` shows the slots.
    public static let shownSlots = "\(slots); emulated, what a rank's HBM holds"
    /// As `--help` shows the tokens.
    public static let shownTokens = "\(tokens); emulated, what a rank's HBM holds"

    /// The values with these sizes where they have none.
    public static func applied(to values: OptionValues) -> OptionValues {
        values.defaulting("prefill-chunk", to: "\(chunk)").defaulting("slots", to: "\(slots)")
            .defaulting("kv-tokens", to: "\(tokens)")
    }
}
