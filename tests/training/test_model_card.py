from srgan_hub.training.arguments import parse_args, resolve_args
from srgan_hub.training.model_card import redact_command


def test_hub_id_in_the_command_is_not_redacted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "accelerate launch train_accelerate.py --pretrained-model-name-or-path org/name --push-to-hub org/other"
    argv = ["--train-data", "a/b", "--output-dir", "c", "--pretrained-model-name-or-path", "org/name"]
    assert redact_command(resolve_args(parse_args(argv), command=command)) == command
