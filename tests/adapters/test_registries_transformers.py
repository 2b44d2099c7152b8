"""A sample of transformers' registry, one or a few of every kind of architecture, does what the results say it does.

The results of the whole registry are in ``docs/_data/registries.json``.
"""

from __future__ import annotations

import json

import pytest

from tests.registries.contract import FAILED, judge
from tests.registries.run import RESULTS
from tests.registries.transformers_models import candidate

SAMPLE = [
    # text, one stack: post-norm, pre-norm, rotary, tied, windowed, with prompts in front, in layers that nothing marks
    "bert/BertModel", "megatron-bert/MegatronBertModel", "esm/EsmModel", "longformer/LongformerModel",
    "cpmant/CpmAntModel", "ibert/IBertModel", "llama/LlamaForCausalLM", "lfm2/Lfm2Model", "openai-gpt/OpenAIGPTModel",
    "xlm-roberta-xl/XLMRobertaXLModel", "t5/T5EncoderModel",
    # experts, state spaces, mixed stacks
    "mixtral/MixtralModel", "mamba/MambaModel", "rwkv/RwkvModel", "jamba/JambaModel",
    # images and both
    "aimv2_vision_model/Aimv2VisionModel", "mgp-str/MgpstrForSceneTextRecognition", "radio/RadioModel",
    "siglip2_vision_model/Siglip2VisionModel", "swin2sr/Swin2SRModel", "layoutlmv3/LayoutLMv3Model", "vilt/ViltModel",
    # sound
    "wav2vec2/Wav2Vec2ForCTC", "wav2vec2-bert/Wav2Vec2BertModel", "whisper/WhisperForAudioClassification",
    "sew-d/SEWDModel",
    # refused: several stacks, stages, packed images, other axes, several streams
    "bridgetower/BridgeTowerModel", "clip/CLIPModel", "llava/LlavaModel", "qwen2_5_vl/Qwen2_5_VLModel",
    "qwen2_5_vl_vision/Qwen2_5_VisionTransformerPretrainedModel", "t5/T5Model", "whisper/WhisperModel", "cvt/CvtModel",
    "funnel/FunnelModel", "gemma3n_text/Gemma3nTextModel", "xlnet/XLNetModel", "pixtral/PixtralVisionModel",
    "granite_speech_encoder/GraniteSpeechCTCEncoder", "hrm_text/HrmTextModel", "blt_local_decoder/BltLocalDecoder",
    "idefics/IdeficsModel", "qwen3_asr_encoder/Qwen3ASREncoder", "rt_detr/RTDetrModel", "seggpt/SegGptModel",
    # with inputs of their own: queries, series, codes, maps of several towers
    "blip-2/Blip2Model", "blip_2_qformer/Blip2QFormerModel", "decision_transformer/DecisionTransformerModel",
    "informer/InformerModel", "kosmos-2/Kosmos2Model", "moshi_depth/MoshiDepthDecoder", "perceiver/PerceiverModel",
    "pix2struct/Pix2StructForConditionalGeneration", "sam2/Sam2Model", "speecht5/SpeechT5Model",
    "llama4_vision_model/Llama4VisionModel", "xcodec/XcodecModel", "chameleon/ChameleonModel",
    # not built, and why
    "bark/BarkModel", "layoutlmv2/LayoutLMv2Model", "sam2_video/Sam2VideoModel",
]  # fmt: skip


def results() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads(RESULTS.read_text())["transformers"]["models"]
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_of_the_registry_does_what_the_results_say(name: str) -> None:
    got, said = judge(candidate(*name.split("/"))), results()[name]
    for key in ("outcome", "reason", "blocks", "tokens", "width"):
        assert getattr(got, key) == said[key], key
    assert list(got.checked_by) == said["checked_by"]


def test_no_model_of_the_registry_fails() -> None:
    assert [name for name, one in results().items() if one["outcome"] == FAILED] == []
