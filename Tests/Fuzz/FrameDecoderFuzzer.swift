/// Feeds bytes to a `FrameDecoder` in reads of a size that the input chooses. What comes out, encoded again, must be
/// what went in.
///
/// Checksums would keep a fuzzer out, so that an even last byte asks for them to be repaired in the first frame.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzFrameDecoder(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count >= 2 else { return 0 }
    var input = Array(UnsafeBufferPointer(start: data, count: count - 2))
    let readSize = Int(data[count - 2]) + 1
    if data[count - 1] % 2 == 0, input.count >= FrameHeader.byteCount { repair(&input) }
    var decoder = FrameDecoder(limits: FrameLimits(metadata: 4096, segment: 4096, body: 1 << 16))
    var output: [UInt8] = []
    input.withUnsafeBytes { bytes in
        for start in stride(from: 0, to: bytes.count, by: readSize) {
            var read = UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + readSize, bytes.count)])
            do throws(WireError) {
                while let frame = try decoder.next(&read) { append(frame, to: &output) }
            } catch {
                return
            }
            precondition(read.isEmpty, "the decoder waits although bytes are left")
        }
    }
    precondition(output.elementsEqual(input.prefix(output.count)), "a frame differs from its bytes")
    return 0
}

private func append(_ frame: Frame, to output: inout [UInt8]) {
    precondition(frame.metadata.count <= 4096 && (frame.body?.count ?? 0) <= 4096, "a frame exceeds its limits")
    frame.header.encode(into: &output)
    output += frame.metadata
    if let body = frame.body { output.append(contentsOf: body.bytes) }
}

private func repair(_ input: inout [UInt8]) {
    func word(_ offset: Int) -> Int { (0..<4).reduce(0) { $0 | Int(input[offset + $1]) << (8 * $1) } }
    func put(_ offset: Int, _ value: UInt32) {
        for index in 0..<4 { input[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index))) }
    }
    put(0, FrameHeader.magic)
    let end = FrameHeader.byteCount + word(48) + word(52)
    if end <= input.count { put(56, input[FrameHeader.byteCount..<end].withUnsafeBytes { checksum32($0) }) }
    put(60, input[..<60].withUnsafeBytes { checksum32($0) })
}
