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
    public mutating func put<Values: Collection>(_ tag: UInt16, array values: Values)
    where Values.Element: FixedWidthInteger {
        start(tag, values.count * MemoryLayout<Values.Element>.size)
        for value in values { bytes.appendInteger(value) }
    }

    /// A run of pairs, each a token id (u32) and an fp32.
    mutating func put<Values: Collection>(_ tag: UInt16, pairs values: Values)
    where Values.Element == (id: UInt32, value: Float) {
        start(tag, values.count * 8)
        for (id, value) in values {
            bytes.appendInteger(id)
            bytes.appendInteger(value.bitPattern)
        }
    }

    /// Several texts: each length (u32) and UTF-8.
    public mutating func put(_ tag: UInt16, strings: [String]) {
        put(tag, elements: strings) { $1.bytes.append(contentsOf: $0.utf8) }
    }

    /// Several values: each its length (u32) and what `write` writes of it.
    mutating func put<Values: Sequence>(
        _ tag: UInt16, elements: Values, _ write: (Values.Element, inout FieldWriter) -> Void
    ) {
        put(tag) { writer in
            for element in elements { writer.measured { write(element, &$0) } }
        }
    }

    /// What `write` writes, such as fields of a value that this field holds.
    mutating func put(_ tag: UInt16, _ write: (inout FieldWriter) -> Void) {
        bytes.appendInteger(tag)
        bytes.appendInteger(UInt16(0))
        measured(write)
    }

    /// A length, which is known when what it counts is there.
    private mutating func measured(_ write: (inout FieldWriter) -> Void) {
        let start = bytes.count + 4
        bytes.appendInteger(UInt32(0))
        write(&self)
        let length = UInt32(bytes.count - start)
        bytes.withUnsafeMutableBytes {
            $0.storeBytes(of: length.littleEndian, toByteOffset: start - 4, as: UInt32.self)
        }
    }

    private mutating func start(_ tag: UInt16, _ length: Int) {
        bytes.appendInteger(tag)
        bytes.appendInteger(UInt16(0))
        bytes.appendInteger(UInt32(length))
    }
}

/// Reads metadata written as `FieldWriter` writes it; every access names the field when it fails.
///
/// It keeps the bytes alone: there are few fields, so that finding one is a walk over their headers.
public struct FieldReader: Sendable {
    private let bytes: ArraySlice<UInt8>

    /// Fields one message may have.
    public static let maximumFields = 64

    /// Fields in all of `bytes`. `known` are the tags the message defines, and `others` those it has in common with others.
    ///
    /// - Throws: `WireError` for a field that is cut, comes twice or must be understood.
    public init(
        _ bytes: [UInt8], known: ClosedRange<UInt16>, _ others: ClosedRange<UInt16>...
    ) throws(WireError) {
        try self.init(bytes[...], known: [known] + others)
    }

    /// Fields in a part of a message.
    init(
        _ bytes: ArraySlice<UInt8>, known: ClosedRange<UInt16>, _ others: ClosedRange<UInt16>...
    ) throws(WireError) {
        try self.init(bytes, known: [known] + others)
    }

    private init(_ bytes: ArraySlice<UInt8>, known: [ClosedRange<UInt16>]) throws(WireError) {
        self.bytes = bytes
        var offset = bytes.startIndex
        var count = 0
        while offset < bytes.endIndex {
            guard bytes.endIndex - offset >= 8 else { throw WireError("metadata ends inside a field header") }
            let tag = integer(offset, UInt16.self)
            let length = Int(integer(offset + 4, UInt32.self))
            guard length <= bytes.endIndex - offset - 8 else {
                let rest = bytes.endIndex - offset - 8
                throw WireError("metadata field \(tag) has length \(length), only \(rest) bytes follow")
            }
            let plain = tag & 0x7FFF
            guard tag & 0x8000 == 0 || known.contains(where: { $0.contains(plain) }) else {
                throw WireError("metadata field \(plain) must be understood and is unknown")
            }
            count += 1
            guard count <= Self.maximumFields else {
                throw WireError("metadata has more than \(Self.maximumFields) fields")
            }
            guard range(plain, before: offset) == nil else {
                throw WireError("metadata field \(plain) is there twice")
            }
            offset += 8 + length
        }
    }

    /// Where the value of a field lies; nil when there is no such field before `end`.
    private func range(_ tag: UInt16, before end: Int) -> Range<Int>? {
        var offset = bytes.startIndex
        while offset < end {
            let value = offset + 8..<offset + 8 + Int(integer(offset + 4, UInt32.self))
            if integer(offset, UInt16.self) & 0x7FFF == tag { return value }
            offset = value.upperBound
        }
        return nil
    }

    /// Its bytes where they lie in the message, nil when absent.
    func slice(_ tag: UInt16) -> ArraySlice<UInt8>? { range(tag, before: bytes.endIndex).map { bytes[$0] } }

    /// A number, or `fallback` when the field is absent; nil fallback makes it required.
    ///
    /// - Throws: `WireError` that names the field.
    public func integer<Value: FixedWidthInteger>(
        _ tag: UInt16, _ name: String, fallback: Value? = nil
    ) throws(WireError) -> Value {
        guard let value = slice(tag) else {
            guard let fallback else { throw WireError("\(name) is missing") }
            return fallback
        }
        guard value.count == MemoryLayout<Value>.size else {
            throw WireError("\(name) has \(value.count) bytes, not \(MemoryLayout<Value>.size)")
        }
        return integer(value.startIndex, Value.self)
    }

    /// A u32 within `range`, or `fallback` when absent; nil fallback makes it required.
    func count(
        _ tag: UInt16, _ name: String, in range: ClosedRange<Int>, fallback: Int? = nil
    ) throws(WireError) -> Int {
        if let fallback, slice(tag) == nil { return fallback }
        let value = Int(try integer(tag, name) as UInt32)
        guard range.contains(value) else {
            throw WireError("\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value)")
        }
        return value
    }

    /// A finite fp32 within `range`, or `fallback` when absent.
    ///
    /// - Throws: `WireError` that names the field.
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
    public func data(_ tag: UInt16) -> [UInt8]? { slice(tag).map { Array($0) } }

    /// UTF-8 text of at most `limit` bytes, nil when absent.
    ///
    /// - Throws: `WireError` that names the field.
    public func text(_ tag: UInt16, _ name: String, limit: Int) throws(WireError) -> String? {
        guard let value = slice(tag) else { return nil }
        guard value.count <= limit else { throw WireError("\(name) has \(value.count) bytes, the limit is \(limit)") }
        guard let text = String(validating: value, as: UTF8.self) else {
            throw WireError("\(name) is not valid UTF-8")
        }
        return text
    }

    /// A run of at most `limit` numbers, empty when absent.
    ///
    /// - Throws: `WireError` that names the field.
    public func array<Value: FixedWidthInteger>(
        _ tag: UInt16, _ name: String, limit: Int
    ) throws(WireError) -> [Value] {
        guard let value = slice(tag) else { return [] }
        let size = MemoryLayout<Value>.size
        guard value.count % size == 0 else {
            throw WireError("\(name) has \(value.count) bytes, not a multiple of \(size)")
        }
        guard value.count / size <= limit else {
            throw WireError("\(name) has \(value.count / size) elements, the limit is \(limit)")
        }
        return value.withUnsafeBytes { bytes in
            (0..<bytes.count / size).map {
                Value(littleEndian: bytes.loadUnaligned(fromByteOffset: $0 * size, as: Value.self))
            }
        }
    }

    /// A run of at most `limit` pairs of a token id and an fp32, each made an element; empty when absent.
    func pairs<Element>(
        _ tag: UInt16, _ name: String, limit: Int, _ make: (UInt32, Float) -> Element
    ) throws(WireError) -> [Element] {
        let words: [UInt32] = try array(tag, name, limit: 2 * limit)
        guard words.count % 2 == 0 else { throw WireError("\(name) ends inside a pair") }
        return stride(from: 0, to: words.count, by: 2).map { make(words[$0], Float(bitPattern: words[$0 + 1])) }
    }

    /// At most `limit` texts of at most `bytes` bytes each, empty when absent.
    ///
    /// - Throws: `WireError` that names the field.
    public func strings(_ tag: UInt16, _ name: String, limit: Int, byteLimit: Int) throws(WireError) -> [String] {
        try elements(tag, name, limit: limit, byteLimit: byteLimit) { (value) throws(WireError) in
            guard let text = String(validating: value, as: UTF8.self) else {
                throw WireError("\(name) is not valid UTF-8")
            }
            return text
        }
    }

    /// At most `limit` values of at most `byteLimit` bytes each, empty when absent.
    func elements<Element>(
        _ tag: UInt16, _ name: String, limit: Int, byteLimit: Int,
        _ read: (ArraySlice<UInt8>) throws(WireError) -> Element
    ) throws(WireError) -> [Element] {
        var rest = slice(tag) ?? []
        var result: [Element] = []
        while !rest.isEmpty {
            guard rest.count >= 4 else { throw WireError("\(name) ends inside a length") }
            let length = Int(integer(rest.startIndex, UInt32.self))
            rest = rest.dropFirst(4)
            guard length <= min(byteLimit, rest.count) else {
                throw WireError("\(name) has an element of \(length) bytes, the limit is \(byteLimit)")
            }
            guard result.count < limit else { throw WireError("\(name) has more than \(limit) elements") }
            result.append(try read(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
        return result
    }

    private func integer<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
        bytes.withUnsafeBytes {
            Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset - bytes.startIndex, as: Value.self))
        }
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
