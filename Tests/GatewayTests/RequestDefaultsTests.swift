import Foundation
import GatewayService
import Serving
import Testing
import WireProtocol

/// What a request says counts, then what the checkpoint says, then what the interface has.
@Suite struct RequestDefaultsTests {
    private static let checkpoint: RequestDefaults = {
        var defaults = RequestDefaults()
        (defaults.temperature, defaults.topP, defaults.topK) = (0.25, 0.5, 7)
        (defaults.minP, defaults.repetitionPenalty) = (0.125, 1.5)
        return defaults
    }()

    private func filled(_ kind: Body, _ fields: String, _ defaults: RequestDefaults) throws -> Sampling {
        let body =
            switch kind {
            case .completions: "{\"prompt\":\"x\"\(fields)}"
            case .chat: "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]\(fields)}"
            case .generate: "{\"text\":\"x\",\"sampling_params\":{\"n\":1\(fields)}}"
            }
        var job = try kind.parse(Array(body.utf8))
        defaults.fill(&job.request.sampling, said: job.saidSampling)
        return job.request.sampling
    }

    @Test(arguments: Body.allCases) func whatARequestDoesNotSayIsAsTheCheckpointHasIt(kind: Body) throws {
        let own = try filled(kind, "", RequestDefaults())
        #expect((own.temperature, own.topP, own.minP, own.repetitionPenalty) == (1, 1, 0, 1) && own.topK == 0)
        let checkpoint = try filled(kind, ",\"top_p\":null", Self.checkpoint)
        #expect((checkpoint.temperature, checkpoint.topP, checkpoint.minP) == (0.25, 0.5, 0.125))
        #expect(checkpoint.repetitionPenalty == 1.5 && checkpoint.topK == 7)
        let said = ",\"temperature\":1,\"top_p\":1,\"top_k\":-1,\"min_p\":0,\"repetition_penalty\":1"
        let request = try filled(kind, said, Self.checkpoint)
        #expect((request.temperature, request.topP, request.minP, request.repetitionPenalty) == (1, 1, 0, 1))
        #expect(request.topK == 0)
        var greedy = RequestDefaults()
        greedy.temperature = 0
        #expect(try filled(kind, ",\"top_p\":0.5", greedy).temperature == 0)
    }

    private func template(_ files: [String: String]) throws -> ChatTemplateFile? {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("template-\(UInt64.random(in: 0...UInt64.max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        for (name, text) in files { try Data(text.utf8).write(to: folder.appendingPathComponent(name)) }
        return ChatTemplateFile(directory: folder)
    }

    @Test func aTemplateThatIsNotUsedIsNamed() throws {
        #expect(try template([:]) == nil && template(["tokenizer_config.json": "{\"bos_token\":null}"]) == nil)
        #expect(try template(["tokenizer_config.json": "{"]) == nil)
        let ling = "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>{{ x }}<role>ASSISTANT</role>"
        #expect(try template(["chat_template.jinja": ling])?.isBuiltIn == true)
        let other = try #require(
            try template([
                "chat_template.jinja": "[user] {{ x }}", "tokenizer_config.json": "{\"chat_template\":\"\(ling)\"}",
            ]))
        #expect(!other.isBuiltIn && other.warning.hasPrefix("chat_template.jinja "))
        let several =
            "{\"chat_template\":[{\"name\":\"default\",\"template\":\"[user]\"},{\"name\":\"b\",\"template\":\"c\"}]}"
        let listed = try #require(try template(["tokenizer_config.json": several]))
        #expect(listed.text == "[user]" && listed.warning.hasPrefix("tokenizer_config.json "))
    }
}
