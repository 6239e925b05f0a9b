import train_accelerate
from srgan_hub.training.model_card import redact_command


def test_a_hub_id_in_the_command_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = train_accelerate.PARSER.parse_args(
        ["--train-data", "a/b", "--output-dir", "c", "--pretrained-model-name-or-path", "org/name"]
    )
    command = "accelerate launch train_accelerate.py --pretrained-model-name-or-path org/name --push-to-hub org/other"
    assert redact_command(args, command) == command
