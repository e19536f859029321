import GatewayService

/// The three bodies that ask for a completion. An array of the parsers themselves crashes the compiler (Swift 6.3.1).
enum Body: CaseIterable {
    case completions, chat, generate

    func parse(_ bytes: [UInt8]) throws(APIError) -> CompletionJob {
        switch self {
        case .completions: try CompletionJob.completions(bytes)
        case .chat: try CompletionJob.chat(bytes)
        case .generate: try CompletionJob.generate(bytes)
        }
    }
}
