import Checkpoint
import Files
import Foundation
import ServiceSupport
import Tokenization

/// `ironling perplexity`: how well a checkpoint predicts a text, computed in this process.
enum PerplexityCommand {
    static let options = CommandLineOptions(
        program: "ironling perplexity", summary: "Prints a checkpoint's perplexity on a text, per token and per byte.",
        options: [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder with a tokenizer.json"),
            CommandLineOption("text", value: "FILE", help: "UTF-8 text"),
            CommandLineOption("context", value: "N", help: "tokens of a window", fallback: "512"),
            CommandLineOption("stride", value: "N", help: "tokens between windows", fallback: "256"),
            CommandLineOption("limit", value: "N", help: "score only the first N tokens; 0 for all", fallback: "0"),
            ServiceProcess.threadsOption("threads that compute"),
            CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
            CommandLineOption("json", help: "print one JSON object"),
        ], position: "model")

    static func run(_ values: OptionValues) throws {
        let checkpoint = try ServiceInputs.checkpoint(values)
        try LoadCheck.run(checkpoint)
        let tokenizer = try tokenizer(checkpoint, values)
        let longest = checkpoint.configuration.maximumPositions
        let context = try values.integer("context", in: 2...max(2, longest))
        let stride = try values.integer("stride", in: 1...context)
        let limit = try values.integer("limit", in: 0...Int.max)
        var tokens = try tokenizer.encode(try text(values), allowSpecial: false)
        if limit > 0 { tokens = Array(tokens.prefix(limit)) }
        guard tokens.count >= 2 else { throw StartError("--text has \(tokens.count) tokens; at least 2 are needed") }
        let vocabulary = checkpoint.configuration.vocabularySize
        if let wrong = tokens.first(where: { Int($0) >= vocabulary }) {
            throw StartError("tokenizer.json gives id \(wrong), but vocab_size is \(vocabulary)")
        }
        let bytes = tokenizer.decodeBytes(tokens.dropFirst()).count
        let perplexity = try TextPerplexity(
            checkpoint, context: context, threads: try values.integer("threads", in: 1...256))
        var shown = 0
        let score = perplexity.score(tokens, stride: stride) { done in
            guard done * 10 / tokens.count > shown, !values.isOn("json") else { return }
            shown = done * 10 / tokens.count
            ServiceProcess.complain("perplexity: \(done) of \(tokens.count - 1) tokens")
        }
        try show(score, bytes, context, stride, isJSON: values.isOn("json"))
    }

    private static func show(
        _ score: TextPerplexity.Score, _ bytes: Int, _ context: Int, _ stride: Int, isJSON: Bool
    ) throws {
        guard isJSON else {
            ServiceProcess.announce(
                String(
                    format: "perplexity %.4f per token (%d tokens), %.4f per byte (%d bytes), windows of %d every %d",
                    score.perToken, score.tokenCount, score.perByte(bytes), bytes, context, stride))
            return
        }
        let object: [String: Any] = [
            "perplexity_per_token": score.perToken, "perplexity_per_byte": score.perByte(bytes),
            "negative_log_likelihood": score.negativeLogLikelihood, "tokens": score.tokenCount, "bytes": bytes,
            "context": context, "stride": stride,
        ]
        let data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])
        ServiceProcess.announce(String(decoding: data, as: UTF8.self))
    }

    private static func text(_ values: OptionValues) throws -> String {
        let path = try values.required("text")
        guard let bytes = try? OpenFile.content(path, limit: Tokenizer.maximumTextBytes),
            let text = String(validating: bytes, as: UTF8.self)
        else {
            throw StartError("--text \(path) is missing, larger than \(Tokenizer.maximumTextBytes) bytes or not UTF-8")
        }
        return text
    }

    private static func tokenizer(_ checkpoint: Checkpoint, _ values: OptionValues) throws -> any TokenCoding {
        let file = checkpoint.directory.appendingPathComponent("tokenizer.json")
        if OpenFile.isThere(file.path) { return try Tokenizer(contentsOf: file) }
        guard values.isOn("byte-tokenizer") else {
            throw StartError("\(checkpoint.directory.path) has no tokenizer.json")
        }
        return ByteTokenizer()
    }
}
