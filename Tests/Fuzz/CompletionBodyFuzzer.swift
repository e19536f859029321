/// Feeds bytes to the body of the completion endpoint that the last byte chooses; what is accepted must be within the
/// limits of the message it becomes.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzCompletionBody(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard count >= 1 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data, count: count - 1))
    guard let job = try? parse(bytes, data[count - 1] % 3) else { return 0 }
    precondition(job.choicesPerPrompt >= 1 && !job.prompts.isEmpty, "an accepted request asks for nothing")
    for prompt in job.prompts {
        var request = GenerateRequest(prompt: prompt, request: job.request)
        (request.model, request.ignoresEnd, request.request.priority) = (job.model, job.ignoresEnd, 0)
        if let maximum = job.maximumTokens { request.request.maximumTokens = maximum }
        if case .tokens(let ids) = prompt, ids.isEmpty { continue }
        precondition((try? GenerateRequest(decoding: request.encoded())) == request, "its message says something else")
    }
    return 0
}

private func parse(_ body: [UInt8], _ endpoint: UInt8) throws(APIError) -> CompletionJob {
    switch endpoint {
    case 0: try CompletionJob.completions(body)
    case 1: try CompletionJob.chat(body)
    default: try CompletionJob.generate(body)
    }
}
