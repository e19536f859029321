/// Feeds bytes to a `RequestParser` in reads of a size that the input chooses. However they are cut, the same requests
/// must come out, and what is held must stay within the limits.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzRequests(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count >= 1 else { return 0 }
    let input = Array(UnsafeBufferPointer(start: data, count: count - 1))
    let whole = parse(input, readSize: max(1, input.count))
    precondition(parse(input, readSize: Int(data[count - 1]) % 16 + 1) == whole, "the cuts change the requests")
    return 0
}

private func parse(_ input: [UInt8], readSize: Int) -> [String] {
    var limits = HTTPLimits()
    (limits.headerBytes, limits.bodyBytes, limits.totalBodyBytes) = (512, 256, 1024)
    let load = HTTPLoad()
    let parser = RequestParser(limits: limits, load: load)
    var seen: [String] = []
    var buffer: [UInt8] = []
    for start in stride(from: 0, to: input.count, by: readSize) {
        buffer += input[start..<min(start + readSize, input.count)]
        while !buffer.isEmpty {
            let used = buffer.withUnsafeBytes { parser.parse($0) }
            precondition(used <= buffer.count, "more was used than there is")
            buffer.removeFirst(used)
            if parser.refusal != nil { return seen + ["refused"] }
            guard parser.isComplete else {
                buffer = []
                break
            }
            let request = parser.takeRequest()
            load.bodyBytes -= parser.takeReserved()
            precondition(request.body.count <= limits.bodyBytes && load.bodyBytes == 0, "a body exceeds its limit")
            let headers = request.headers.map { "\($0.name): \($0.value)" }.joined(separator: "\n")
            precondition(headers.utf8.count <= 4 * limits.headerBytes, "headers exceed their limit")
            seen.append("\(request.method) \(request.path) \(request.query) \(headers) \(request.body)")
        }
    }
    return seen
}
