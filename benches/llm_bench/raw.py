"""The physical bound: `llama_decode` alone, with fixed tokens and no choice."""

import os

import llama_cpp.llama_cpp as C

from llm_bench.setting import timed


def raw_decode(setting, path, widths, steps):
    """Return tokens a second of `llama_decode` alone at each width: short contexts apart, no choice of tokens."""
    C.llama_backend_init()
    parameters = C.llama_model_default_params()
    parameters.n_gpu_layers, parameters.use_extra_bufts = setting.options["n_gpu_layers"], False
    model = C.llama_model_load_from_file(os.fsencode(str(path)), parameters)
    options = C.llama_context_default_params()
    options.n_seq_max, options.n_ctx, options.n_batch, options.n_ubatch = max(widths), 256 * max(widths), 512, 512
    options.n_threads = options.n_threads_batch = setting.threads
    options.kv_unified, options.no_perf = False, True
    options.type_k = options.type_v = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}[setting.kv or setting.chosen_kv()]
    # As the engine does it: on for a q8_0 cache, which needs it; llama.cpp's own choice on a GPU.
    chosen = setting.options["flash_attention"]
    free = -1 if setting.options["n_gpu_layers"] else int(setting.kv == "q8_0")
    options.flash_attn_type = free if chosen is None else int(chosen)
    context = C.llama_init_from_model(model, options)
    if not context:
        raise SystemExit("llama.cpp gives no context for these options; see its lines above")
    memory = C.llama_get_memory(context)
    batch = C.llama_batch_init(512, 0, 1)
    rates = {}
    for width in widths:
        times = []
        for position in range(36 + steps):
            batch.n_tokens = width
            for row in range(width):
                batch.token[row], batch.pos[row], batch.logits[row] = 1000 + row, position, True
                batch.n_seq_id[row], batch.seq_id[row][0] = 1, row
            spent, code = timed(lambda: C.llama_decode(context, batch))
            assert code == 0
            times.append(spent)
        rates[width] = width * steps / sum(times[36:])
        C.llama_memory_clear(memory, False)
    C.llama_batch_free(batch)
    C.llama_free(context)
    C.llama_model_free(model)
    return rates
