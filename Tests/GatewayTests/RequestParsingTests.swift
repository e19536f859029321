import GatewayService
import Serving
import Testing
import WireProtocol

/// Every field of every body: right, of the wrong type, out of range, and what no parser should choke on.
@Suite struct RequestParsingTests {
    private typealias Parser = ([UInt8]) throws(APIError) -> CompletionJob

    private func completions(_ fields: String) throws(APIError) -> CompletionJob {
        try CompletionJob.completions(Array("{\"prompt\":\"x\"\(fields)}".utf8))
    }

    private func chat(_ fields: String) throws(APIError) -> CompletionJob {
        try CompletionJob.chat(Array("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]\(fields)}".utf8))
    }

    private func generate(_ fields: String) throws(APIError) -> CompletionJob {
        try CompletionJob.generate(Array("{\"text\":\"x\"\(fields)}".utf8))
    }

    /// Expects a body to be refused with 400 and a message that names `field`.
    private func refused(_ body: String, _ parse: Parser, _ field: String) {
        do throws(APIError) {
            _ = try parse(Array(body.utf8))
            Issue.record("accepted: \(body.prefix(200))")
        } catch {
            #expect(error.status == 400 && error.message.contains(field), "\(body.prefix(200)): \(error)")
        }
    }

    @Test func everyFieldReachesTheRequest() throws {
        let job = try completions(
            """
            ,"model":"m","max_tokens":7,"temperature":0.5,"top_p":0.25,"top_k":3,"min_p":0.125,"seed":9,"stop":["a","b"],
            "stop_token_ids":[4],"ignore_eos":true,"min_tokens":2,"repetition_penalty":1.5,"presence_penalty":-1,
            "frequency_penalty":0.5,"logit_bias":{"5":-100,"6":1.5},"n":2,"logprobs":3,"stream":true,
            "stream_options":{"include_usage":true,"continuous_usage_stats":true},"user":"u","metadata":{},"store":false,
            "best_of":1,"echo":false,"suffix":null,"tools":null
            """)
        let request = job.request
        #expect(job.prompts == [.text("x")] && job.maximumTokens == 7 && job.choicesPerPrompt == 2)
        #expect(job.streams && job.includesUsage && job.continuousUsage && !job.echoes)
        #expect(job.model == "m" && request.topLogprobs == 3 && request.stopTexts == ["a", "b"])
        #expect(request.stopTokens == [4] && job.ignoresEnd && request.minimumTokens == 2)
        let sampling = request.sampling
        #expect(sampling.temperature == 0.5 && sampling.topP == 0.25 && sampling.topK == 3 && sampling.minP == 0.125)
        #expect(sampling.repetitionPenalty == 1.5 && sampling.presencePenalty == -1)
        #expect(sampling.frequencyPenalty == 0.5 && sampling.seed == 9)
        #expect(sampling.logitBias == [TokenBias(id: 5, bias: -100), TokenBias(id: 6, bias: 1.5)])
    }

    @Test func defaultsAreThoseOfTheInterface() throws {
        let completion = try completions("")
        #expect(completion.maximumTokens == 16 && completion.request.sampling.temperature == 1)
        #expect(completion.request.topLogprobs == nil && !completion.streams)
        #expect(try chat("").maximumTokens == nil)
        #expect(try generate("").maximumTokens == 128)
        #expect(try chat(",\"max_completion_tokens\":5").maximumTokens == 5)
        #expect(try completions(",\"seed\":-1").request.sampling.seed == .max)
        #expect(try completions(",\"seed\":18446744073709551615").request.sampling.seed == .max)
        #expect(try completions(",\"top_k\":-1").request.sampling.topK == 0)
        #expect(try completions(",\"max_tokens\":1e2").maximumTokens == 100)
        #expect(try completions(",\"stop\":\"a\"").request.stopTexts == ["a"])
        #expect(try completions(",\"stop\":[\"\",\"a\",\"\"]").request.stopTexts == ["a"])
        #expect(try completions(",\"stop\":\"\",\"logprobs\":false").request.stopTexts.isEmpty)
    }

    @Test func promptsOfEveryKind() throws {
        func prompts(_ prompt: String) throws(APIError) -> [GenerateRequest.Prompt] {
            try CompletionJob.completions(Array("{\"prompt\":\(prompt)}".utf8)).prompts
        }
        #expect(try prompts("\"a\"") == [.text("a")])
        #expect(try prompts("[1,2]") == [.tokens([1, 2])])
        #expect(try prompts("[\"a\",\"b\"]") == [.text("a"), .text("b")])
        #expect(try prompts("[[1],[2,3]]") == [.tokens([1]), .tokens([2, 3])])
        for bad in ["[]", "{}", "true", "1", "[1,\"a\"]", "[[1],[\"a\"]]", "[-1]", "[1.5]", "[4294967296]", "[1e300]"] {
            refused("{\"prompt\":\(bad)}", CompletionJob.completions, "prompt")
        }
        let many = Array(repeating: "\"a\"", count: 33).joined(separator: ",")
        refused("{\"prompt\":[\(many)]}", CompletionJob.completions, "prompt")
        refused("{}", CompletionJob.completions, "prompt")
    }

    @Test func numbersOutOfRangeOfTheWrongTypeOrNoNumbers() {
        let ranges = [
            ("temperature", ["-0.1", "101"]), ("top_p", ["-0.1", "1.1"]), ("min_p", ["-1", "2"]),
            ("repetition_penalty", ["0", "101"]), ("presence_penalty", ["-101", "101"]),
            ("frequency_penalty", ["-101", "101"]), ("top_k", ["-2", "1000001", "1.5"]),
            ("max_tokens", ["0", "-1", "262145", "1.5", "99999999999999999999"]), ("n", ["0", "33", "1.1"]),
            ("min_tokens", ["-1", "262145"]), ("logprobs", ["-1", "21"]),
            ("seed", ["1.5", "1e300", "-1e19", "-9223372036854775809", "18446744073709551616"]),
        ]
        let never = ["\"1\"", "true", "[]", "{}", "1e999", "-1e999", String(repeating: "9", count: 500)]
        for (field, outside) in ranges {
            for value in outside + never {
                refused("{\"prompt\":\"x\",\"\(field)\":\(value)}", CompletionJob.completions, field)
            }
            for word in ["NaN", "Infinity", "-Infinity", "0x10", "+1", "01", ".5", "1."] {
                refused("{\"prompt\":\"x\",\"\(field)\":\(word)}", CompletionJob.completions, "JSON")
            }
        }
    }

    /// vLLM's clients send lower numbers for what matters more, SGLang's higher ones.
    @Test func priorityMeansWhatEachInterfaceSays() throws {
        #expect(try completions("").request.priority == 128 && generate("").request.priority == 128)
        #expect(try completions(",\"priority\":-100").request.priority == 228)
        #expect(try chat(",\"priority\":7").request.priority == 121)
        #expect(try generate(",\"priority\":100").request.priority == 228)
        #expect(try generate(",\"priority\":-3").request.priority == 125)
        for value in ["101", "-101", "1.5", "\"high\"", "[]"] {
            refused("{\"prompt\":\"x\",\"priority\":\(value)}", CompletionJob.completions, "priority")
            refused("{\"text\":\"x\",\"priority\":\(value)}", CompletionJob.generate, "priority")
        }
    }

    @Test func flagsTextsAndLists() {
        for field in ["stream", "ignore_eos", "echo"] {
            for value in ["1", "\"true\"", "[]", "{}"] {
                refused("{\"prompt\":\"x\",\"\(field)\":\(value)}", CompletionJob.completions, field)
            }
        }
        let longStop = String(repeating: "a", count: 257)
        let manyStops = Array(repeating: "\"a\"", count: 17).joined(separator: ",")
        let manyIDs = Array(repeating: "1", count: 65).joined(separator: ",")
        let manyBiases = (0...1024).map { "\"\($0)\":1" }.joined(separator: ",")
        for (field, value) in [
            ("model", "1"), ("model", "\"\(String(repeating: "m", count: 1025))\""), ("stop", "1"), ("stop", "[1]"),
            ("stop", "[null]"), ("stop", "\"\(longStop)\""), ("stop", "[\(manyStops)]"),
            ("stop_token_ids", "1"), ("stop_token_ids", "[\"1\"]"), ("stop_token_ids", "[\(manyIDs)]"),
            ("logit_bias", "[]"), ("logit_bias", "{\"a\":1}"), ("logit_bias", "{\"1\":101}"),
            ("logit_bias", "{\"1\":\"1\"}"), ("logit_bias", "{\"-1\":1}"), ("logit_bias", "{\"1\":1,\"01\":1}"),
            ("logit_bias", "{\(manyBiases)}"), ("stream_options", "[]"), ("stream_options", "{\"include_usage\":true}"),
        ] { refused("{\"prompt\":\"x\",\"\(field)\":\(value)}", CompletionJob.completions, field) }
        refused("{\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"x\":1}}", CompletionJob.completions, "x")
    }

    @Test func whatIsNotSupportedIsRefusedByName() throws {
        for field in ["best_of", "suffix", "response_format", "tools", "functions", "store", "nonsense", "Prompt"] {
            refused("{\"prompt\":\"x\",\"\(field)\":{\"type\":\"x\"}}", CompletionJob.completions, field)
        }
        for field in ["tools", "tool_choice", "response_format", "reasoning_effort", "audio", "prompt", "echo"] {
            refused(
                "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"\(field)\":\"x\"}", CompletionJob.chat, field)
        }
        for field in ["json_schema", "regex", "best_of"] {
            refused("{\"text\":\"x\",\"sampling_params\":{\"\(field)\":\"x\"}}", CompletionJob.generate, field)
        }
        refused("{\"prompt\":\"x\",\"echo\":true,\"logprobs\":1}", CompletionJob.completions, "echo")
        refused(
            "{\"prompt\":\"x\",\"max_tokens\":1,\"max_completion_tokens\":2}", CompletionJob.completions, "max_tokens")
        refused("{\"prompt\":[\"a\",\"b\"],\"n\":17}", CompletionJob.completions, "n")
        for field in ["logprob_start_len", "token_ids_logprob"] {
            _ = try generate(",\"\(field)\":1")
            refused("{\"text\":\"x\",\"return_logprob\":true,\"\(field)\":1}", CompletionJob.generate, field)
        }
        refused("{\"text\":\"x\",\"input_ids\":[1]}", CompletionJob.generate, "input_ids")
        refused("{\"text\":[\"x\",\"y\"],\"stream\":true}", CompletionJob.generate, "stream")
    }

    @Test func conversations() throws {
        let body = """
            {"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"a"},
            {"type":"text","text":"b"}]},{"role":"assistant","content":null,"refusal":null},
            {"role":"tool","content":"t","tool_call_id":"1"}],"logprobs":true,"top_logprobs":2}
            """
        let job = try CompletionJob.chat(Array(body.utf8))
        let turns = [("system", "s"), ("user", "ab"), ("assistant", ""), ("tool", "t")]
        #expect(job.prompts == [.chat(turns.map { GenerateRequest.ChatTurn(role: $0.0, content: $0.1) })])
        #expect(job.request.topLogprobs == 2)
        for (messages, field) in [
            ("[]", "messages"), ("{}", "messages"), ("[1]", "messages[0]"), ("[{}]", "messages[0].role"),
            ("[{\"role\":\"robot\",\"content\":\"x\"}]", "messages[0].role"),
            ("[{\"role\":\"user\"}]", "messages[0].content"),
            ("[{\"role\":\"user\",\"content\":1}]", "messages[0].content"),
            ("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]", "messages[0].content[0].type"),
            ("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", "messages[0].content[0].text"),
            ("[{\"role\":\"user\",\"content\":\"x\",\"function_call\":{}}]", "messages[0].function_call"),
            ("[{\"role\":\"assistant\",\"tool_calls\":[{}]}]", "messages[0].tool_calls"),
        ] { refused("{\"messages\":\(messages)}", CompletionJob.chat, field) }
        let topAlone = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_logprobs\":2}"
        refused(topAlone, CompletionJob.chat, "top_logprobs")
    }

    @Test func brokenAndHostileJSON() {
        let deep = String(repeating: "[", count: 100_000)
        for body in [
            "", " ", "{", "[]", "1", "\"x\"", "null", "{\"prompt\":\"x\",}", "{\"prompt\":\"x\"}x", deep,
            "{\"prompt\":\(deep)", "{\"prompt\":\"\\ud800\"}", "{'prompt':1}",
            "{\"prompt\":\"\u{1}\"}",
        ] { refused(body, CompletionJob.completions, "JSON") }
        do throws(APIError) {
            _ = try CompletionJob.completions(Array("{\"prompt\":\"".utf8) + [0xFF, 0xC0] + Array("\"}".utf8))
            Issue.record("accepted a text that is not UTF-8")
        } catch {
            #expect(error.status == 400)
        }
    }

    /// Random bodies of known names and odd values either parse or are refused with 400.
    @Test(arguments: 1...3 as ClosedRange<UInt64>) func randomBodiesParseOrAreRefused(seed: UInt64) {
        var state = seed
        func pick(_ values: [String]) -> String {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return values[Int(state >> 33) % values.count]
        }
        let names = [
            "prompt", "messages", "text", "input_ids", "stop", "n", "seed", "logit_bias", "stream_options", "logprobs",
            "sampling_params", "temperature", "max_tokens",
        ]
        let values = [
            "null", "1", "-1", "1e400", "\"\"", "\"x\"", "[]", "[[]]", "{}", "true", "[1]", "{\"1\":1}",
            "[{\"role\":\"user\",\"content\":\"x\"}]", "[null]",
        ]
        for _ in 0..<1000 {
            var chosen: [String] = []
            for name in (0..<4).map({ _ in pick(names) }) where !chosen.contains(name) { chosen.append(name) }
            let fields = chosen.map { "\"\($0)\":\(pick(values))" }
            let body = Array("{\(fields.joined(separator: ","))}".utf8)
            for kind in Body.allCases {
                do throws(APIError) { _ = try kind.parse(body) } catch {
                    #expect(error.status == 400, "seed \(seed): \(fields)")
                }
            }
        }
    }
}
