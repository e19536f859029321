import Checkpoint
import EventLoop
import Foundation
import Glibc
import RPC
import ServiceSupport
import Serving
import Tokenization
import WireProtocol

/// `ironling generate`: one completion, through services started for it, a running gateway, or in this process.
enum GenerateCommand {
    static let options = CommandLineOptions(
        program: "ironling generate", summary: "Generates one completion and prints it.",
        options: GatewaySession.options + [
            CommandLineOption("prompt", value: "TEXT", help: "prompt as text; -, or none at all: standard input"),
            CommandLineOption("prompt-ids", value: "1,2,3", help: "prompt as token ids"),
            CommandLineOption("max-tokens", value: "N", help: "tokens to generate at most", fallback: "16"),
            CommandLineOption("temperature", value: "T", help: "0 is greedy", fallback: "0"),
            CommandLineOption("top-k", value: "K", help: "keep the K likeliest; 0 keeps all", fallback: "0"),
            CommandLineOption("top-p", value: "P", help: "keep the likeliest up to this mass", fallback: "1"),
            CommandLineOption("seed", value: "S", help: "seed of the random numbers", fallback: "0"),
            CommandLineOption("ignore-eos", help: "go on past the model's end tokens"),
            CommandLineOption("in-process", help: "use the single-process forward instead of services"),
            CommandLineOption("json", help: "print one JSON object instead of text"),
        ], position: "model")

    /// What a completion came to.
    struct Result {
        var promptIDs: [UInt32]
        var tokens: [Token] = []
        var text = ""
        var reason = End.Reason.length
    }

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        var request = try request(values)
        let tokenizer = try tokenizer(values)
        if case .text(let text) = request.prompt, let tokenizer {
            request.prompt = .tokens(try tokenizer.encode(text, addingSpecialTokens: true))
        }
        var result: Result
        if values.isOn("in-process") {
            result = try InProcessGeneration.run(request, values)
            result.text = tokenizer?.decode(result.tokens.map(\.id), skipSpecial: true) ?? ""
        } else {
            result = try await GatewaySession.with(values, loop) { client in
                try await stream(request, client, prints: !values.isOn("json"))
            }
        }
        if values.isOn("json") {
            try printJSON(result)
        } else {
            ServiceProcess.announce(values.isOn("in-process") ? result.text : "")
        }
    }

    /// The tokenizer of `--model`, so that text prompts are shown as ids too; nil without one.
    private static func tokenizer(_ values: OptionValues) throws -> (any TokenCoding)? {
        guard let path = values.text("model") else { return nil }
        let folder = try ModelFolder(path)
        if folder.has("tokenizer.json") { return try Tokenizer(contentsOf: folder.file("tokenizer.json")) }
        return values.isOn("byte-tokenizer") ? ByteTokenizer() : nil
    }

    private static func stream(_ request: GenerateRequest, _ client: RPCClient, prints: Bool) async throws -> Result {
        let stream = try await client.stream(
            .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 3_600_000_000)
        var result = Result(promptIDs: [])
        if case .tokens(let ids) = request.prompt { result.promptIDs = ids }
        while let payload = try await stream.next() {
            let item = try GenerateItem(decoding: payload.metadata)
            result.tokens += item.tokens
            result.text += item.text
            if prints { StandardStream.output.write(item.text) }
        }
        let end = try End(decoding: stream.final?.metadata ?? [])
        result.reason = end.reason
        if prints, result.text.isEmpty { print(result.tokens.map { String($0.id) }.joined(separator: ",")) }
        return result
    }

    private static func request(_ values: OptionValues) throws -> GenerateRequest {
        var request: GenerateRequest
        let (text, ids) = (values.text("prompt"), values.text("prompt-ids"))
        guard text == nil || ids == nil else { throw UsageError("--prompt and --prompt-ids exclude each other") }
        let readsInput = text == "-" || (!values.isGiven("prompt") && ids == nil)
        if let ids {
            var tokens: [UInt32] = []
            for part in ids.split(separator: ",", omittingEmptySubsequences: false) {
                guard let id = UInt32(part.trimmingCharacters(in: .whitespaces)) else {
                    throw UsageError("--prompt-ids takes token ids separated by commas, not \"\(part)\"")
                }
                tokens.append(id)
            }
            request = GenerateRequest(prompt: .tokens(tokens))
        } else {
            guard let text = readsInput ? try standardInput() : text, !text.isEmpty else {
                throw UsageError("the prompt is empty: --prompt TEXT, --prompt-ids 1,2,3 or standard input has it")
            }
            request = GenerateRequest(prompt: .text(text))
        }
        request.request.maximumTokens = try values.integer("max-tokens", in: 1...MessageLimits.generatedTokens)
        request.request.sampling.temperature = Float(try values.number("temperature", in: 0...100))
        request.request.sampling.topK = try values.integer("top-k", in: 0...1_000_000)
        request.request.sampling.topP = Float(try values.number("top-p", in: 0...1))
        request.request.sampling.seed = UInt64(try values.integer("seed", in: 0...Int.max))
        request.request.topLogprobs = 0
        request.ignoresEnd = values.isOn("ignore-eos")
        return request
    }

    /// All of standard input, without the line end that a shell puts behind it.
    private static func standardInput() throws -> String {
        if isatty(STDIN_FILENO) == 1 { ServiceProcess.complain("the prompt is read from here; Ctrl-D ends it") }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while case let count = read(STDIN_FILENO, &part, part.count), count > 0 {
            bytes += part[..<count]
            guard bytes.count <= MessageLimits.promptBytes else {
                throw UsageError("the prompt on standard input has more than \(MessageLimits.promptBytes) bytes")
            }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw UsageError("the prompt on standard input is not UTF-8")
        }
        return text.hasSuffix("\n") || text.hasSuffix("\r\n") ? String(text.dropLast()) : text
    }

    private static func printJSON(_ result: Result) throws {
        let object: [String: Any] = [
            "prompt_ids": result.promptIDs.map(Int.init), "ids": result.tokens.map { Int($0.id) },
            "logprobs": result.tokens.map { Double($0.logprob) }, "text": result.text,
            "finish_reason": result.reason.name,
        ]
        let data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])
        ServiceProcess.announce(String(decoding: data, as: UTF8.self))
    }
}
