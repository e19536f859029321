/// Feeds bytes to the message decoder that the last byte chooses. What a decoder accepts must encode to bytes that it
/// accepts again, and that encode to themselves.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzMessages(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count >= 1 else { return 0 }
    let input = Array(UnsafeBufferPointer(start: data, count: count - 1))
    let recode = recoders[Int(data[count - 1]) % recoders.count]
    guard let once = recode(input) else { return 0 }
    precondition(recode(once) == once, "an accepted message is not stable")
    return 0
}

private let recoders: [@Sendable ([UInt8]) -> [UInt8]?] = [
    { try? Hello(decoding: $0).encoded() },
    { try? Authenticate(decoding: $0).encoded() },
    { try? Failure(decoding: $0).encoded() },
    { try? Credit(decoding: $0).encoded() },
    { try? GenerateRequest(decoding: $0).encoded() },
    { try? GenerateItem(decoding: $0).encoded() },
    { try? End(decoding: $0).encoded() },
    { try? TokensRequest(decoding: $0).encoded() },
    { try? Token(decoding: $0).encoded() },
    { bytes in
        guard let request = try? ExpertsRequest(decoding: bytes) else { return nil }
        precondition(request.replyFloats >= 0 && request.bodyOffsets == request.bodyOffsets.sorted(), "sizes overflow")
        return request.encoded()
    },
    { try? SampleRequest(decoding: $0).encoded() },
    { try? SampleReply(decoding: $0).encoded() },
    { try? StatusReply(decoding: $0).encoded() },
    { try? PrefillRequest(decoding: $0).encoded() },
    { try? StateSegment(decoding: $0).encoded() },
    { try? PrefillEnd(decoding: $0).encoded() },
]
