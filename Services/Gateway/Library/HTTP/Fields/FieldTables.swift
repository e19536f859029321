import JSON

/// The fields of every request, as clients of OpenAI, vLLM, SGLang and llama.cpp send them. What is served later (tools,
/// schemas) leaves `refused` then.
extension FieldTable {
    private static let no = JSONValue.bool(false)
    private static let yes = JSONValue.bool(true)
    private static let none = JSONValue.array([])
    private static let empty = JSONValue.object([])

    private static func number(_ spelling: String) -> JSONValue { .number(spelling) }

    private static let free = "answers are not held to a grammar or schema here"
    private static let toolless = "the model is asked without tools here"
    private static let plain = "sampling has temperature, top_p, top_k, min_p, penalties and logit_bias here"
    private static let once = "a token is drawn once, without a search among several answers; ask for n answers instead"
    private static let mute = "only tokens, their text and their logprobs are in an answer"
    private static let textOnly = "only text goes in and comes out here"
    private static let fixed = "the chat format of the checkpoint's family is built in"

    /// What OpenAI's two interfaces have in common.
    private static let shared = FieldTable(
        "",
        read: [
            "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop",
            "stop_token_ids", "stream", "stream_options", "ignore_eos", "priority", "min_tokens", "repetition_penalty",
            "presence_penalty", "frequency_penalty", "logit_bias", "n", "logprobs", "cache_salt",
        ],
        harmless: [
            "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier",
            "request_id", "rid", "session_id", "conversation_id", "chat_id", "trace_id", "tags", "custom_labels",
            "log_metrics", "return_token_ids", "spaces_between_special_tokens", "extra_key", "caching",
            "cache_prompt", "cache_control", "id_slot", "keep_alive", "n_keep", "timings_per_token", "return_progress",
            "data_parallel_rank", "guided_decoding_backend", "usage", "prediction",
        ],
        usual: usualOfBoth, refused: refusedOfBoth)

    private static let usualOfBoth: [(String, [JSONValue], String)] = [
        ("store", [no], "answers are not kept"),
        ("response_format", [.object([.init("type", .string("text"))])], free),
        ("tools", [none], toolless), ("tool_choice", [.string("none"), .string("auto")], toolless),
        ("functions", [none], toolless), ("function_call", [.string("none"), .string("auto")], toolless),
        ("best_of", [number("1")], once), ("use_beam_search", [no], once), ("length_penalty", [number("1")], once),
        ("early_stopping", [no], once), ("repetition_detection", [no, empty], plain),
        ("skip_special_tokens", [yes], "special tokens have no text here; token_ids has their ids"),
        ("include_stop_str_in_output", [no], "a stop string is no part of the answer"),
        ("no_stop_trim", [no], "a stop string is no part of the answer"),
        ("return_tokens_as_token_ids", [no], "token_ids stands beside the text"),
        ("return_hidden_states", [no], mute), ("return_routed_experts", [no], mute), ("prompt_logprobs", [no], mute),
        ("bad_words", [none], "tokens can be banned by logit_bias"), ("logits_processors", [none], plain),
        ("vllm_xargs", [empty], plain), ("custom_params", [empty], plain), ("structured_outputs", [empty], free),
        ("guided_choice", [none], free), ("grammar", [.string("")], free), ("ebnf", [.string("")], free),
        ("regex", [.string("")], free), ("stop_regex", [none, .string("")], "stop takes strings"),
        ("lora_path", [.string("")], "one model without adapters is served"),
        ("typical_p", [number("1")], plain), ("tfs_z", [number("1")], plain), ("top_a", [number("0")], plain),
        ("mirostat", [number("0")], plain), ("dynatemp_range", [number("0")], plain),
        ("xtc_probability", [number("0")], plain), ("dry_multiplier", [number("0")], plain),
        ("top_n_sigma", [number("-1")], plain), ("n_probs", [number("0")], "logprobs shows alternatives"),
        ("repeat_penalty", [number("1")], "repetition_penalty is the name here"),
    ]

    private static let refusedOfBoth = [
        ("guided_json", free), ("guided_regex", free), ("guided_grammar", free), ("guided_whitespace_pattern", free),
        ("structural_tag", free), ("json_schema", free),
        ("allowed_token_ids", "tokens can be favoured and banned by logit_bias"),
        ("truncate_prompt_tokens", "a prompt is taken whole or refused"),
        ("n_predict", "max_tokens is the name here"), ("num_predict", "max_tokens is the name here"),
        ("max_new_tokens", "max_tokens is the name here"), ("min_new_tokens", "min_tokens is the name here"),
        ("kv_transfer_params", "the gateway decides where a prompt is computed"),
        ("session_params", "each request brings its whole prompt"), ("prompt_embeds", textOnly), ("images", textOnly),
    ]

    /// `/v1/completions`.
    package static let completions = FieldTable(
        "CompletionRequest", read: ["prompt", "echo", "add_special_tokens"],
        usual: [("suffix", [.string("")], "a prompt is continued at its end")]
    ).with(shared)

    /// `/v1/chat/completions`.
    package static let chat = FieldTable(
        "ChatRequest",
        read: ["messages", "top_logprobs", "chat_template_kwargs", "enable_thinking"],
        harmless: [
            "parallel_tool_calls", "include_reasoning", "separate_reasoning", "stream_reasoning", "media_io_kwargs",
            "mm_processor_kwargs", "max_dynamic_patch",
        ],
        usual: [
            ("modalities", [.array([.string("text")])], textOnly), ("echo", [no], "an answer begins after the prompt"),
            (
                "reasoning_effort",
                ["none", "minimal", "low", "medium", "high", "xhigh", "max", "auto", "default"].map { .string($0) },
                "the model has no grades of reasoning, and any grade gets the same answer"
            ), ("verbosity", [.string("medium")], "the model has one verbosity"),
            ("thinking", [no, .object([.init("type", .string("disabled"))])], "enable_thinking is the name here"),
            ("add_generation_prompt", [yes], "an answer is always a new turn of the assistant"),
            ("continue_final_message", [no], "an answer is always a new turn of the assistant"),
            ("add_special_tokens", [no], "a chat prompt has the special tokens of its format and no others"),
            ("documents", [none], "what the model is to know stands in the messages"),
        ],
        refused: [
            ("chat_template", fixed), ("audio", textOnly),
            ("web_search_options", "the model has its prompt and no web"),
            ("prompt", "a conversation is in messages"),
        ]
    ).with(shared)

    /// `stream_options`.
    package static let streamOptions = FieldTable(
        "StreamOptions", read: ["include_usage", "continuous_usage_stats"],
        usual: [("include_obfuscation", [no], "events are as long as their text")])

    /// `chat_template_kwargs`: what the built-in format does not read changes nothing, as in any template.
    package static let templateOptions = FieldTable(
        "TemplateOptions", read: ["enable_thinking", "thinking"],
        usual: [
            ("add_generation_prompt", [yes], "an answer is always a new turn of the assistant"),
            ("continue_final_message", [no], "an answer is always a new turn of the assistant"),
            ("tools", [none], toolless), ("documents", [none], "what the model is to know stands in the messages"),
            ("chat_template", [.string("")], fixed),
        ],
        others: .harmless)

    /// A message: what the chat format does not read changes nothing, unless it holds a part of what was said.
    package static let message = FieldTable(
        "ChatMessage", read: ["role", "content", "reasoning_content", "reasoning"],
        harmless: ["name", "id", "timestamp", "tool_call_id", "annotations", "metadata", "cache_control"],
        usual: [
            ("tool_calls", [none], toolless), ("images", [none], textOnly), ("files", [none], textOnly),
            ("refusal", [.string("")], "what the assistant said is in content"),
            ("prefix", [no], "an answer is always a new turn of the assistant"),
            ("partial", [no], "an answer is always a new turn of the assistant"),
        ],
        refused: [("function_call", toolless), ("audio", textOnly)], others: .harmless)

    /// A part of a message's content.
    package static let part = FieldTable(
        "ContentPart", read: ["type", "text"], harmless: ["cache_control"], others: .harmless)

    /// `/generate`.
    package static let generate = FieldTable(
        "GenerateRequest",
        read: [
            "text", "input_ids", "sampling_params", "stream", "return_logprob", "priority", "top_logprobs_num", "model",
            "logprob_start_len", "token_ids_logprob",
        ],
        harmless: [
            "rid", "return_text_in_logprobs", "log_metrics", "conversation_id", "custom_labels", "extra_key",
            "data_parallel_rank", "max_dynamic_patch", "stream_interval",
        ],
        usual: [
            ("return_routed_experts", [no], mute), ("return_hidden_states", [no], mute), ("return_bytes", [no], mute),
            ("return_entropy", [no], mute), ("require_reasoning", [no], "answers begin as the model begins them"),
            ("background", [no], "an answer comes with its request"), ("image_data", [none], textOnly),
            ("video_data", [none], textOnly), ("audio_data", [none], textOnly),
            ("modalities", [none, .array([.string("text")])], textOnly),
            ("lora_path", [.string("")], "one model without adapters is served"),
            ("custom_logit_processor", [.string("")], plain),
        ],
        refused: [("input_embeds", textOnly), ("session_params", "each request brings its whole prompt")])

    /// `sampling_params` of `/generate`.
    package static let samplingParameters = FieldTable(
        "SamplingParameters",
        read: [
            "max_new_tokens", "min_new_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty",
            "presence_penalty", "repetition_penalty", "stop", "stop_token_ids", "ignore_eos", "n", "seed",
            "sampling_seed", "logit_bias",
        ],
        harmless: ["spaces_between_special_tokens", "stream_interval"],
        usual: [
            ("skip_special_tokens", [yes], "special tokens have no text here; output_ids has their ids"),
            ("no_stop_trim", [no], "a stop string is no part of the answer"), ("custom_params", [empty], plain),
            ("stop_regex", [none, .string("")], "stop takes strings"), ("best_of", [number("1")], once),
            ("use_beam_search", [no], once), ("length_penalty", [number("1")], once), ("early_stopping", [no], once),
        ],
        refused: [
            ("json_schema", free), ("regex", free), ("ebnf", free), ("structural_tag", free),
            ("max_tokens", "max_new_tokens is the name here"), ("min_tokens", "min_new_tokens is the name here"),
        ])

    /// `/tokenize`.
    package static let tokenize = FieldTable(
        "TokenizeRequest",
        read: ["model", "prompt", "messages", "chat_template_kwargs", "enable_thinking", "add_special_tokens"],
        harmless: ["mm_processor_kwargs"],
        usual: [
            ("add_generation_prompt", [yes], "the assistant's turn is always opened"),
            ("continue_final_message", [no], "the assistant's turn is always opened"),
            ("return_token_strs", [no], "/detokenize gives the text of ids"), ("tools", [none], toolless),
        ],
        refused: [("chat_template", fixed)])

    /// `/detokenize`.
    package static let detokenize = FieldTable("DetokenizeRequest", read: ["model", "tokens", "skip_special_tokens"])

    /// All of them.
    package static let all = [
        completions, chat, streamOptions, templateOptions, message, part, generate, samplingParameters, tokenize,
        detokenize,
    ]
}
