import Checkpoint
import ContentIdentity
import ServiceSupport

/// The model a gateway serves, as far as it has to know it: a checkpoint's, or the shape of one that is emulated.
public struct ServedModel {
    /// Name under which it is served unless another is asked for.
    let name: String
    /// What `config.json` says.
    let configuration: ModelConfiguration
    /// Tokenizer, if the checkpoint has one.
    let codec: CheckpointCodec?
    /// What requests over HTTP are sampled with where they say nothing.
    let defaults: RequestDefaults
    /// Sentences about what the checkpoint's files say and is not used.
    let notes: [String]
    /// What tells it from other models.
    let fingerprint: String
    /// What its weights and the files beside them hold; nil when it is emulated.
    let contents: ContentManifest?
    /// True when answers are dummy text.
    let isEmulated: Bool

    /// A model of which only the shape is there: what it is told and says are bytes.
    public init(emulating name: String, configuration: ModelConfiguration, fingerprint: String) {
        self.name = name
        self.configuration = configuration
        self.fingerprint = fingerprint
        (codec, contents) = (.bytes, nil)
        (defaults, notes) = (RequestDefaults(), [])
        isEmulated = true
    }

    /// The checkpoint that `--model` names.
    init(_ values: OptionValues) throws {
        let checkpoint = try ServedCheckpoint.open(values)
        (name, configuration) = (checkpoint.name, checkpoint.configuration)
        fingerprint = checkpoint.fingerprint
        contents = try checkpoint.contents()
        let generation = try Self.generation(checkpoint, values)
        defaults = RequestDefaults(generation)
        let template = ChatTemplateFile(directory: checkpoint.directory)
        codec = try CheckpointCodec.load(checkpoint, usesBytes: values.isOn("byte-tokenizer"))
        notes =
            configuration.notes + generation.notes + (codec?.notes ?? [])
            + (template.map { $0.isBuiltIn ? [] : [$0.warning] } ?? [])
        isEmulated = false
    }

    private static func generation(_ checkpoint: Checkpoint, _ values: OptionValues) throws -> GenerationDefaults {
        switch try values.required("generation-config") {
        case "auto": return try checkpoint.generationDefaults()
        case "ignore": return GenerationDefaults()
        case let word: throw UsageError("--generation-config is auto or ignore, not \"\(word)\"")
        }
    }
}

extension RequestDefaults {
    /// What a checkpoint says.
    init(_ generation: GenerationDefaults) {
        self.init()
        temperature = generation.temperature.map { Float($0) }
        topP = generation.topP.map { Float($0) }
        topK = generation.topK
        minP = generation.minP.map { Float($0) }
        repetitionPenalty = generation.repetitionPenalty.map { Float($0) }
        if self != RequestDefaults() { source = "generation_config.json" }
    }
}
