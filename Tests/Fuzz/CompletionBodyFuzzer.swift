/// Feeds bytes to the body of the completion endpoint that the last byte chooses; what is accepted must be within the
/// limits of the message it becomes.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCompletionBody(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count >= 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data, count: count - 1))
    let parsers: [([UInt8]) throws(APIError) -> CompletionJob] = [
        { (body) throws(APIError) in try CompletionJob.completions(body) },
        { (body) throws(APIError) in try CompletionJob.chat(body) },
        { (body) throws(APIError) in try CompletionJob.generate(body) },
    ]
    guard let job = try? parsers[Int(data[count - 1]) % parsers.count](bytes) else { return 0 }
    precondition(job.choicesPerPrompt >= 1 && !job.prompts.isEmpty, "an accepted request asks for nothing")
    for prompt in job.prompts {
        var request = job.template
        request.prompt = prompt
        if let maximum = job.maximumTokens { request.maxTokens = UInt32(maximum) }
        if case .tokens(let ids) = prompt, ids.isEmpty { continue }
        precondition((try? GenerateRequest(decoding: request.encoded())) == request, "its message says something else")
    }
    return 0
}
