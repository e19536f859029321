import Foundation
import JSON

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
    ///
    /// - Throws: `CheckpointError` when no header of that length can be there.
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
    ///
    /// - Throws: `CheckpointError` that names the file and the tensor.
    public init(json: Data, fileByteCount: Int, file: String) throws(CheckpointError) {
        let header: JSONValue
        do throws(JSONError) { header = try JSONValue(parsing: Array(json)) } catch {
            throw CheckpointError(.malformed, "\(file): the header is not JSON: \(error)")
        }
        guard case .object(let members) = header else {
            throw CheckpointError(.malformed, "\(file): the header is not a JSON object")
        }
        dataStart = 8 + json.count
        var tensors: [String: TensorEntry] = [:]
        tensors.reserveCapacity(members.count)
        for member in members where member.name != "__metadata__" {
            let (name, value) = (member.name, member.value)
            let entry = try Self.entry(name, value, dataStart: dataStart, fileByteCount: fileByteCount, file: file)
            guard tensors.updateValue(entry, forKey: name) == nil else {
                throw CheckpointError(.malformed, "\(file): the name \(name) is given to two tensors")
            }
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
        _ name: String, _ value: JSONValue, dataStart: Int, fileByteCount: Int, file: String
    ) throws(CheckpointError) -> TensorEntry {
        func refuse(_ reason: String) -> CheckpointError {
            CheckpointError(.malformed, "\(file): tensor \(name) \(reason)")
        }
        guard case .string(let type) = value["dtype"], let shape = integers(value["shape"]),
            let offsets = integers(value["data_offsets"]), offsets.count == 2
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

    private static func integers(_ value: JSONValue?) -> [Int]? {
        guard case .array(let numbers) = value, numbers.count <= 8 else { return nil }
        var result: [Int] = []
        for number in numbers {
            guard let integer = number.integer, (0..<9_000_000_000_000_000).contains(integer) else { return nil }
            result.append(integer)
        }
        return result
    }
}
