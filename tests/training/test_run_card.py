import train_accelerate
from srgan_hub.training.run_card import shown_command


def test_a_hub_id_in_the_command_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = train_accelerate.PARSER.parse_args(["--train-data", "a/b", "--output-dir", "c", "--init-from", "org/name"])
    command = "accelerate launch train_accelerate.py --init-from org/name --push-to-hub org/other"
    assert shown_command(args, command) == command
