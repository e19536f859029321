import Foundation

/// Feeds bytes to the safetensors header as a whole file. Every tensor that is accepted must lie inside it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzSafetensors(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let file = Data(bytes: data, count: count)
    let prefix = Array(file.prefix(8))
    guard let length = try? SafetensorsHeader.jsonByteCount(prefix: prefix, fileByteCount: count, file: "f") else {
        return 0
    }
    precondition(8 + length <= count, "the header goes on beyond the file")
    guard let header = try? SafetensorsHeader(json: file[8..<8 + length], fileByteCount: count, file: "f") else {
        return 0
    }
    var end = header.dataStart
    for entry in header.tensors.values.sorted(by: { ($0.offset, $0.byteCount) < ($1.offset, $1.byteCount) }) {
        precondition(entry.offset >= end && entry.byteCount >= 0, "tensors overlap")
        end = entry.offset + entry.byteCount
        precondition(end <= count, "a tensor ends beyond the file")
        let size = SafetensorsHeader.elementByteCount(entry.storedType) ?? 0
        precondition(entry.shape.reduce(size) { $0 &* $1 } == entry.byteCount, "a shape needs other bytes")
    }
    return 0
}
