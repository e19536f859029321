import Foundation

/// One tensor's place in a safetensors file.
public struct TensorEntry: Sendable, Equatable {
    /// Stored type as the file writes it: F32, BF16, F8_E4M3, I32, …
    public let storedType: String
    /// Dimensions.
    public let shape: [Int]
    /// First byte, counted from the start of the file.
    public let offset: Int
    /// Bytes.
    public let byteCount: Int
}

/// The parsed and checked header of a safetensors file: little-endian length, JSON, then the tensors' bytes.
public struct SafetensorsHeader: Sendable, Equatable {
    /// Longest JSON header that is read.
    public static let maximumByteCount = 100 << 20

    /// Tensors by name.
    public let tensors: [String: TensorEntry]
    /// Bytes before the first tensor.
    public let dataStart: Int

    /// Bytes of one element of a stored type; nil for a type that is not known.
    public static func elementByteCount(_ storedType: String) -> Int? {
        switch storedType {
        case "F64", "I64", "U64": 8
        case "F32", "I32", "U32": 4
        case "F16", "BF16", "I16", "U16": 2
        case "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL": 1
        default: nil
        }
    }

    /// Length of the JSON header from the first eight bytes of a file of `fileByteCount` bytes.
    public static func jsonByteCount(
        prefix: [UInt8], fileByteCount: Int, file: String
    ) throws(CheckpointError) -> Int {
        guard prefix.count == 8, fileByteCount >= 8 else {
            throw CheckpointError(.malformed, "\(file) has \(fileByteCount) bytes, a header takes at least 8")
        }
        let length = prefix.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(maximumByteCount), length <= UInt64(fileByteCount - 8) else {
            throw CheckpointError(
                .malformed,
                "\(file): header length \(length) exceeds the file or the limit of \(maximumByteCount) bytes")
        }
        return Int(length)
    }

    /// Parses the JSON header of a file of `fileByteCount` bytes; every tensor must lie inside it and none may overlap.
    public init(json: Data, fileByteCount: Int, file: String) throws(CheckpointError) {
        guard let parsed = try? JSONSerialization.jsonObject(with: json), let object = parsed as? [String: Any] else {
            throw CheckpointError(.malformed, "\(file): the header is not a JSON object")
        }
        dataStart = 8 + json.count
        var tensors: [String: TensorEntry] = [:]
        for (name, value) in object where name != "__metadata__" {
            tensors[name] = try Self.entry(name, value, dataStart: dataStart, fileByteCount: fileByteCount, file: file)
        }
        var end = dataStart
        for (name, entry) in tensors.sorted(by: { ($0.value.offset, $0.key) < ($1.value.offset, $1.key) }) {
            guard entry.offset >= end else {
                throw CheckpointError(.malformed, "\(file): tensor \(name) overlaps another")
            }
            end = entry.offset + entry.byteCount
        }
        self.tensors = tensors
    }

    private static func entry(
        _ name: String, _ value: Any, dataStart: Int, fileByteCount: Int, file: String
    ) throws(CheckpointError) -> TensorEntry {
        func refuse(_ reason: String) -> CheckpointError {
            CheckpointError(.malformed, "\(file): tensor \(name) \(reason)")
        }
        guard let fields = value as? [String: Any], let type = fields["dtype"] as? String,
            let shape = integers(fields["shape"]), let offsets = integers(fields["data_offsets"]), offsets.count == 2
        else { throw refuse("lacks dtype, shape or data_offsets") }
        guard let size = elementByteCount(type) else { throw refuse("has the unknown dtype \(type)") }
        var expected = size
        for dimension in shape {
            let (product, overflow) = expected.multipliedReportingOverflow(by: dimension)
            guard !overflow else { throw refuse("has a shape too large to address") }
            expected = product
        }
        guard offsets[0] <= offsets[1], offsets[1] <= fileByteCount - dataStart else {
            throw refuse("ends at byte \(offsets[1]) of its data, the file has \(fileByteCount - dataStart)")
        }
        guard offsets[1] - offsets[0] == expected else {
            throw refuse("takes \(offsets[1] - offsets[0]) bytes, its shape needs \(expected)")
        }
        return TensorEntry(storedType: type, shape: shape, offset: dataStart + offsets[0], byteCount: expected)
    }

    private static func integers(_ value: Any?) -> [Int]? {
        guard let numbers = value as? [NSNumber], numbers.count <= 8 else { return nil }
        var result: [Int] = []
        for number in numbers {
            guard number.doubleValue >= 0, number.doubleValue < 9e15,
                number.doubleValue == number.doubleValue.rounded()
            else { return nil }
            result.append(number.intValue)
        }
        return result
    }
}
