/// Writes metadata: a run of fields, each tag (u16), zero (u16), length (u32), bytes; all little-endian.
///
/// A tag with bit 15 set must be understood by the reader; other unknown tags are skipped (SPECIFICATION section 5).
public struct FieldWriter: Sendable {
    /// What was written.
    public private(set) var bytes: [UInt8] = []

    /// An empty writer.
    public init() {}

    /// A number.
    public mutating func put<Value: FixedWidthInteger>(_ tag: UInt16, _ value: Value) {
        start(tag, MemoryLayout<Value>.size)
        bytes.appendInteger(value)
    }

    /// An fp32.
    public mutating func put(_ tag: UInt16, _ value: Float) { put(tag, value.bitPattern) }

    /// UTF-8 text.
    public mutating func put(_ tag: UInt16, _ value: String) { put(tag, Array(value.utf8)) }

    /// Bytes.
    public mutating func put(_ tag: UInt16, _ value: [UInt8]) {
        start(tag, value.count)
        bytes.append(contentsOf: value)
    }

    /// A run of numbers.
    public mutating func put<Value: FixedWidthInteger>(_ tag: UInt16, array values: [Value]) {
        start(tag, values.count * MemoryLayout<Value>.size)
        for value in values { bytes.appendInteger(value) }
    }

    /// Several texts: each length (u32) and UTF-8.
    public mutating func put(_ tag: UInt16, strings: [String]) {
        var packed: [UInt8] = []
        for string in strings {
            packed.appendInteger(UInt32(string.utf8.count))
            packed.append(contentsOf: string.utf8)
        }
        put(tag, packed)
    }

    private mutating func start(_ tag: UInt16, _ length: Int) {
        bytes.appendInteger(tag)
        bytes.appendInteger(UInt16(0))
        bytes.appendInteger(UInt32(length))
    }
}

/// Reads metadata written as `FieldWriter` writes it; every access names the field when it fails.
public struct FieldReader: Sendable {
    private let bytes: [UInt8]
    private var fields: [UInt16: Range<Int>] = [:]

    /// Fields one message may have.
    public static let maximumFields = 64

    /// Splits `bytes` into fields. `known` are the tags the message defines.
    public init(_ bytes: [UInt8], known: ClosedRange<UInt16>) throws(WireError) {
        self.bytes = bytes
        var offset = 0
        while offset < bytes.count {
            guard bytes.count - offset >= 8 else { throw WireError("metadata ends inside a field header") }
            let tag = Self.integer(bytes, offset, UInt16.self)
            let length = Int(Self.integer(bytes, offset + 4, UInt32.self))
            offset += 8
            guard length <= bytes.count - offset else {
                throw WireError("metadata field \(tag) has length \(length), only \(bytes.count - offset) bytes follow")
            }
            let plain = tag & 0x7FFF
            guard known.contains(plain) || tag & 0x8000 == 0 else {
                throw WireError("metadata field \(plain) must be understood and is unknown")
            }
            guard fields.updateValue(offset..<offset + length, forKey: plain) == nil else {
                throw WireError("metadata field \(plain) is there twice")
            }
            guard fields.count <= Self.maximumFields else {
                throw WireError("metadata has more than \(Self.maximumFields) fields")
            }
            offset += length
        }
    }

    /// A number, or `fallback` when the field is absent; nil fallback makes it required.
    public func integer<Value: FixedWidthInteger>(
        _ tag: UInt16, _ name: String, fallback: Value? = nil
    ) throws(WireError) -> Value {
        guard let range = fields[tag] else {
            guard let fallback else { throw WireError("\(name) is missing") }
            return fallback
        }
        guard range.count == MemoryLayout<Value>.size else {
            throw WireError("\(name) has \(range.count) bytes, not \(MemoryLayout<Value>.size)")
        }
        return Self.integer(bytes, range.lowerBound, Value.self)
    }

    /// A finite fp32 within `range`, or `fallback` when absent.
    public func number(
        _ tag: UInt16, _ name: String, in range: ClosedRange<Float>, fallback: Float
    ) throws(WireError) -> Float {
        let value = Float(bitPattern: try integer(tag, name, fallback: fallback.bitPattern))
        guard range.contains(value) else {
            throw WireError("\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value)")
        }
        return value
    }

    /// Bytes, nil when absent.
    public func data(_ tag: UInt16) -> [UInt8]? { fields[tag].map { Array(bytes[$0]) } }

    /// UTF-8 text of at most `limit` bytes, nil when absent.
    public func text(_ tag: UInt16, _ name: String, limit: Int) throws(WireError) -> String? {
        guard let range = fields[tag] else { return nil }
        guard range.count <= limit else { throw WireError("\(name) has \(range.count) bytes, the limit is \(limit)") }
        guard let text = String(validating: bytes[range], as: UTF8.self) else {
            throw WireError("\(name) is not valid UTF-8")
        }
        return text
    }

    /// A run of at most `limit` numbers, empty when absent.
    public func array<Value: FixedWidthInteger>(
        _ tag: UInt16, _ name: String, limit: Int
    ) throws(WireError) -> [Value] {
        guard let range = fields[tag] else { return [] }
        let size = MemoryLayout<Value>.size
        guard range.count % size == 0 else {
            throw WireError("\(name) has \(range.count) bytes, not a multiple of \(size)")
        }
        guard range.count / size <= limit else {
            throw WireError("\(name) has \(range.count / size) elements, the limit is \(limit)")
        }
        return stride(from: range.lowerBound, to: range.upperBound, by: size).map {
            Self.integer(bytes, $0, Value.self)
        }
    }

    /// At most `limit` texts of at most `bytes` bytes each, empty when absent.
    public func strings(_ tag: UInt16, _ name: String, limit: Int, byteLimit: Int) throws(WireError) -> [String] {
        guard let range = fields[tag] else { return [] }
        var result: [String] = []
        var offset = range.lowerBound
        while offset < range.upperBound {
            guard range.upperBound - offset >= 4 else { throw WireError("\(name) ends inside a length") }
            let length = Int(Self.integer(bytes, offset, UInt32.self))
            offset += 4
            guard length <= min(byteLimit, range.upperBound - offset) else {
                throw WireError("\(name) has an element of \(length) bytes, the limit is \(byteLimit)")
            }
            guard let text = String(validating: bytes[offset..<offset + length], as: UTF8.self) else {
                throw WireError("\(name) is not valid UTF-8")
            }
            result.append(text)
            guard result.count <= limit else { throw WireError("\(name) has more than \(limit) elements") }
            offset += length
        }
        return result
    }

    private static func integer<Value: FixedWidthInteger>(_ bytes: [UInt8], _ offset: Int, _: Value.Type) -> Value {
        bytes.withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }
}

extension String {
    /// As much of it as a receiver takes: a sentence that holds the sentences of others may have become too long.
    func cut(toBytes limit: Int) -> String {
        guard utf8.count > limit else { return self }
        var bytes = 0
        let end = unicodeScalars.firstIndex { scalar in
            bytes += UTF8.width(scalar)
            return bytes > limit
        }
        return end.map { String(unicodeScalars[..<$0]) } ?? self
    }
}
