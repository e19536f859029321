import Checkpoint
import Foundation
import Testing

struct GenerationDefaultsTests {
    /// The defaults that a checkpoint with this `generation_config.json` gives its requests.
    private func defaults(_ text: String?, tokenizer: String? = nil) throws -> (GenerationDefaults, Checkpoint) {
        let folder = try CheckpointFolder()
        try folder.write(safetensors([.floats("x", [2])]), "model.safetensors")
        if let text { try folder.write(Data(text.utf8), "generation_config.json") }
        if let tokenizer { try folder.write(Data(tokenizer.utf8), "tokenizer.json") }
        let checkpoint = try folder.open()
        return (try checkpoint.generationDefaults(), checkpoint)
    }

    @Test func fieldsAreDefaultsAndNullIsSilent() throws {
        let text = #"""
            {"temperature": 0.8, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "do_sample": true,
             "eos_token_id": [5, null, 2], "bos_token_id": 1, "transformers_version": "4.57.1", "num_beams": 1}
            """#
        let (given, checkpoint) = try defaults(text)
        #expect(given.temperature == 0.8 && given.topP == 0.95 && given.topK == 20 && given.minP == 0.05)
        #expect(given.repetitionPenalty == 1.1 && given.doSample == true && given.notes.isEmpty)
        #expect(given.endTokenIDs == [2, 5])
        #expect(checkpoint.configuration.endTokenIDs == [1, 2, 5])
        let nulls = #"{"temperature": null, "top_p": null, "top_k": null, "do_sample": null, "eos_token_id": null}"#
        #expect(try defaults(nulls).0 == GenerationDefaults())
        #expect(try defaults(nil).0 == GenerationDefaults())
        #expect(try defaults("{}").0 == GenerationDefaults())
    }

    @Test(arguments: ["null", "0.9", "1e-3"])
    func withoutSamplingItIsGreedyWhateverTheTemperature(temperature: String) throws {
        let (given, _) = try defaults(#"{"do_sample": false, "temperature": \#(temperature), "top_p": null}"#)
        #expect(given.temperature == 0)
        #expect(given.doSample == false)
    }

    @Test func topKOfNothingKeepsAll() throws {
        #expect(try defaults(#"{"top_k": -1}"#).0.topK == 0)
        #expect(try defaults(#"{"top_k": 0}"#).0.topK == 0)
    }

    @Test func endTokensMayBeNamedByTheirText() throws {
        let tokenizer = #"{"added_tokens": [{"id": 7, "content": "<|role_end|>"}, {"id": 9, "content": "<end>"}]}"#
        let (given, checkpoint) = try defaults(#"{"eos_token_id": ["<|role_end|>", 3]}"#, tokenizer: tokenizer)
        #expect(given.endTokenIDs == [3, 7])
        #expect(checkpoint.configuration.endTokenIDs == [1, 3, 7])
        #expect(try defaults(#"{"eos_token_id": "<end>"}"#, tokenizer: tokenizer).0.endTokenIDs == [9])
        let unknown = refusal { _ = try defaults(#"{"eos_token_id": "<none>"}"#, tokenizer: tokenizer) }
        #expect(unknown?.contains(#"generation_config.json: eos_token_id names "<none>""#) == true, "\(unknown ?? "")")
        #expect(refusal { _ = try defaults(#"{"eos_token_id": "<end>"}"#) }?.contains("<end>") == true)
    }

    @Test(arguments: [
        #""temperature": -1"#, #""temperature": "hot""#, #""temperature": Infinity"#, #""top_p": 1.5"#,
        #""top_p": -0.1"#, #""top_k": 1.5"#, #""top_k": -2"#, #""top_k": 1e400"#, #""min_p": 2"#,
        #""repetition_penalty": 0"#, #""repetition_penalty": NaN"#, #""do_sample": 1"#, #""eos_token_id": 256"#,
        #""eos_token_id": [[1]]"#, #""eos_token_id": 1.5"#, #""eos_token_id": true"#, #""eos_token_id": -1"#,
        #""eos_token_id": 99999999999999999999"#, #""num_beams": 4"#, #""no_repeat_ngram_size": 3"#,
        #""bad_words_ids": [[5]]"#, #""forced_eos_token_id": 5"#, #""penalty_alpha": 0.6"#, #""suppress_tokens": [1]"#,
        #""begin_suppress_tokens": [1]"#, #""typical_p": 0.9"#, #""epsilon_cutoff": 0.1"#, #""guidance_scale": 1.5"#,
        #""stop_strings": ["x"]"#, #""min_new_tokens": 5"#, #""sequence_bias": {"a": 1}"#, #""token_healing": true"#,
        #""watermarking_config": {}"#, #""exponential_decay_length_penalty": [1, 1.1]"#, #""num_beams": "many""#,
    ])
    func whatIsOutOfRangeOrNotOfferedIsRefusedByName(field: String) throws {
        let name = String(field.dropFirst().prefix { $0 != "\"" })
        let sentence = refusal { _ = try defaults("{\(field)}") }
        #expect(sentence?.hasPrefix("generation_config.json: \(name) ") == true, "\(sentence ?? "accepted")")
    }

    @Test func valuesThatAskForWhatHappensAnywayAreNoRefusal() throws {
        let text = #"""
            {"num_beams": 1, "num_beam_groups": 1, "no_repeat_ngram_size": 0, "bad_words_ids": null, "typical_p": 1.0,
             "penalty_alpha": 0, "guidance_scale": 1.0, "suppress_tokens": [], "length_penalty": 2.0, "stop_strings": [],
             "token_healing": false, "use_cache": true, "_from_model_config": true, "sequence_bias": null}
            """#
        #expect(try defaults(text).0.notes.isEmpty)
    }

    @Test func whatIsNotAppliedIsNoted() throws {
        let (given, _) = try defaults(#"{"max_length": 4096, "max_new_tokens": 512, "of_tomorrow": Infinity}"#)
        #expect(given.notes.count == 3)
        for name in ["max_length", "max_new_tokens", "of_tomorrow"] {
            #expect(given.notes.contains { $0.hasPrefix("generation_config.json: \(name) ") })
        }
    }

    @Test func aBrokenFileIsNamedWithLineColumnAndWhatStandsThere() throws {
        let sentence = refusal { _ = try defaults("{\"temperature\": 0.8,\n  \"top_p\" 0.9}") }
        #expect(
            sentence
                == "generation_config.json, line 2, column 11: a colon is missing behind a name; there stands: 0.9}")
        #expect(refusal { _ = try defaults("[]") } == "generation_config.json is not a JSON object")
        #expect(refusal { _ = try defaults(" ") }?.contains("generation_config.json, line 1, column 2") == true)
    }
}
