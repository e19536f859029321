/// One piece of a request's state on its way from the instance that computed it to the one that decodes from it.
public enum TransferSegment: Sendable, Hashable {
    /// Latents of consecutive tokens of one MLA layer of the model, by position: [tokens, R + dr].
    case latents(layer: Int, tokens: Range<Int>)
    /// The state of one linear layer of the model after the whole prompt: [H, D, D].
    case state(layer: Int)

    /// Layer of the model.
    public var layer: Int {
        switch self {
        case .latents(let layer, _), .state(let layer): layer
        }
    }
}
