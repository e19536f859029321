/// Writes JSON straight into bytes, without a tree in between: a token's event costs one buffer.
///
/// Commas come by themselves; nesting is the caller's to keep. Text is escaped so that no line break of any convention is
/// left in it (U+0085, U+2028 and U+2029 too, at which some clients of event streams split).
public struct JSONWriter {
    /// What was written.
    public var bytes: [UInt8]
    private var needsComma = false

    /// A writer that appends to `bytes`.
    public init(into bytes: [UInt8] = []) { self.bytes = bytes }

    /// Opens an object.
    public mutating func beginObject() { open(UInt8(ascii: "{")) }

    /// Closes an object.
    public mutating func endObject() { close(UInt8(ascii: "}")) }

    /// Opens an array.
    public mutating func beginArray() { open(UInt8(ascii: "[")) }

    /// Closes an array.
    public mutating func endArray() { close(UInt8(ascii: "]")) }

    /// The name of the next value; plain ASCII that needs no escape.
    public mutating func name(_ name: StaticString) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        bytes.append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// The name of the next value, any text.
    public mutating func name(_ name: String) {
        value(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// A text.
    public mutating func value(_ text: String) {
        comma()
        JSONText.append(text, to: &bytes)
    }

    /// A whole number.
    public mutating func value(_ number: Int) {
        comma()
        bytes.append(contentsOf: String(number).utf8)
    }

    /// A number; what JSON cannot say (an impossible token's logprob) becomes -9999, as OpenAI's interface has it.
    public mutating func value(_ number: Float) {
        comma()
        bytes.append(contentsOf: (number.isFinite ? number.description : "-9999.0").utf8)
    }

    /// A number of seconds or the like; it must be finite.
    public mutating func value(_ number: Double) {
        comma()
        bytes.append(contentsOf: (number.isFinite ? number.description : "0").utf8)
    }

    /// True or false.
    public mutating func value(_ flag: Bool) {
        comma()
        bytes.append(contentsOf: (flag ? "true" : "false").utf8)
    }

    /// Null.
    public mutating func null() {
        comma()
        bytes.append(contentsOf: "null".utf8)
    }

    /// Whole numbers as an array.
    @inlinable public mutating func value(_ numbers: some Sequence<Int>) {
        beginArray()
        for number in numbers { value(number) }
        endArray()
    }

    /// JSON that was written before.
    public mutating func raw(_ json: [UInt8]) {
        comma()
        bytes.append(contentsOf: json)
    }

    private mutating func open(_ byte: UInt8) {
        comma()
        bytes.append(byte)
        needsComma = false
    }

    private mutating func close(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
    }

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }
}
