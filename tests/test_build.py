"""The build backend and the decisions of setup.py: what is built, and what is said otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import lif_backend
import lif_build
import pytest
from lif_build import BuildError, Nvcc, Plan

ROOT = Path(lif_build.__file__).resolve().parent.parent
TOOLKIT = Nvcc(Path("/toolkit"), "13.0")


def decide(choice: str, torch_cuda: str | None, nvcc: Nvcc | None) -> Plan:
    return lif_build.decide(choice, "2.13.0+test", torch_cuda, lambda: nvcc)


def no_look() -> Nvcc | None:
    raise AssertionError("nvcc was looked for")


class TestDecide:
    @pytest.mark.parametrize("choice", ["auto", "cuda"])
    def test_cuda_where_torch_and_nvcc_have_it(self, choice: str) -> None:
        plan = decide(choice, "13.0", TOOLKIT)
        assert plan.kind == "cuda"
        assert plan.nvcc == TOOLKIT
        assert plan.no_cuda_because == ""

    def test_minor_versions_may_differ(self) -> None:
        assert decide("auto", "13.2", TOOLKIT).kind == "cuda"

    def test_cpu_when_asked_for(self) -> None:
        plan = lif_build.decide("cpu", "2.13.0", "13.0", no_look)
        assert plan.kind == "cpu"
        assert plan.no_cuda_because == "LIF_CUDA_BUILD=cpu asked for it"

    def test_a_torch_without_cuda_needs_no_nvcc(self) -> None:
        plan = lif_build.decide("auto", "2.13.0+cpu", None, no_look)
        assert plan.kind == "cpu"
        assert plan.no_cuda_because == "torch 2.13.0+cpu was built without CUDA"

    @pytest.mark.parametrize(
        ("nvcc", "because"),
        [
            (None, "no CUDA compiler (nvcc) was found"),
            (Nvcc(Path("/old"), "12.9"), "nvcc is of CUDA 12.9, but torch"),
        ],
    )
    def test_auto_builds_for_the_cpu_and_says_why(self, nvcc: Nvcc | None, because: str) -> None:
        plan = decide("auto", "13.0", nvcc)
        assert plan.kind == "cpu"
        assert because in plan.no_cuda_because

    @pytest.mark.parametrize(
        ("torch_cuda", "nvcc", "missing", "remedy"),
        [
            (None, TOOLKIT, "was built without CUDA", "install a torch built with CUDA"),
            ("13.0", None, "no CUDA compiler", "install a CUDA 13.0 toolkit with nvcc"),
            ("13.0", Nvcc(Path("/old"), "12.9"), "CUDA 12.9", "install a CUDA 13.0 toolkit"),
        ],
    )
    def test_cuda_where_it_is_impossible_is_an_error(
        self, torch_cuda: str | None, nvcc: Nvcc | None, missing: str, remedy: str
    ) -> None:
        with pytest.raises(BuildError, match="LIF_CUDA_BUILD=cuda") as caught:
            decide("cuda", torch_cuda, nvcc)
        assert missing in str(caught.value)
        assert remedy in str(caught.value)

    @pytest.mark.parametrize("choice", ["CUDA", "gpu", "1", " "])
    def test_another_choice_is_an_error(self, choice: str) -> None:
        with pytest.raises(BuildError, match=f"one of auto, cpu, cuda; got '{choice}'"):
            decide(choice, "13.0", TOOLKIT)


class TestMakePlan:
    def test_reads_the_switch_and_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(lif_build, "find_nvcc", lambda environ: Path("/toolkit/bin/nvcc"))
        monkeypatch.setattr(lif_build, "describe_nvcc", lambda nvcc: TOOLKIT)
        expected = Plan(torch.__version__, "13.0", TOOLKIT)
        assert lif_build.make_plan({}) == expected
        assert lif_build.make_plan({"LIF_CUDA_BUILD": ""}) == expected
        assert lif_build.make_plan({"LIF_CUDA_BUILD": "cpu"}).kind == "cpu"

    def test_never_asks_for_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        def is_available() -> bool:
            raise AssertionError("the build asked for a device")

        monkeypatch.setattr(torch.cuda, "is_available", is_available)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(lif_build, "find_nvcc", lambda environ: None)
        assert lif_build.make_plan({}).kind == "cpu"

    def test_without_torch_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(BuildError, match="pip install 'torch>=2.11' setuptools ninja"):
            lif_build.make_plan({})


class TestNvcc:
    @staticmethod
    def compiler(folder: Path, release: str = "13.0") -> Path:
        """A compiler that answers as nvcc does, from a toolkit in ``folder``."""
        nvcc = folder / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = --version ]; then echo "release {release}, V{release}.1"; fi\n'
            f'if [ "$1" = --dryrun ]; then echo "#$ TOP={folder}/bin/.." >&2; fi\n'
        )
        nvcc.chmod(0o755)
        return nvcc

    def test_cuda_home_goes_before_path(self, tmp_path: Path) -> None:
        home = self.compiler(tmp_path / "home")
        path = self.compiler(tmp_path / "path")
        environ = {"PATH": str(path.parent), "CUDA_HOME": str(tmp_path / "home")}
        assert lif_build.find_nvcc(environ) == home
        assert lif_build.find_nvcc({"PATH": str(path.parent), "CUDA_HOME": ""}) == path

    def test_cuda_home_without_a_compiler_is_not_passed_over(self, tmp_path: Path) -> None:
        path = self.compiler(tmp_path / "path")
        environ = {"PATH": str(path.parent), "CUDA_HOME": str(tmp_path / "empty")}
        assert lif_build.find_nvcc(environ) is None

    def test_the_toolkit_behind_a_script(self, tmp_path: Path) -> None:
        real = self.compiler(tmp_path / "cuda")
        script = tmp_path / "bin" / "nvcc"
        script.parent.mkdir()
        script.write_text(f'#!/bin/sh\nexec {real} "$@"\n')
        script.chmod(0o755)
        assert lif_build.describe_nvcc(script) == Nvcc(tmp_path / "cuda", "13.0")

    def test_a_compiler_that_does_not_work(self, tmp_path: Path) -> None:
        broken = tmp_path / "nvcc"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        with pytest.raises(BuildError, match="did not name a CUDA release; set CUDA_HOME"):
            lif_build.describe_nvcc(broken)


class TestArchitectures:
    CODES = "sm_75\nsm_80\nsm_86\nsm_90\nsm_100\n"

    def test_default_where_no_device_is_visible(self) -> None:
        assert lif_build.arch_list({}, [], self.CODES) == "8.0;9.0+PTX"

    def test_the_users_list_is_left_alone(self) -> None:
        environ = {"TORCH_CUDA_ARCH_LIST": "7.5 8.6+PTX"}
        assert lif_build.arch_list(environ, [(9, 0)], self.CODES) == "7.5 8.6+PTX"

    def test_visible_devices_are_added_once(self) -> None:
        found = [(8, 6), (7, 5), (8, 6), (9, 0)]
        assert lif_build.arch_list({}, found, self.CODES) == "8.0;7.5;8.6;9.0+PTX"

    def test_a_device_newer_than_the_compiler_runs_from_the_ptx(self) -> None:
        assert lif_build.arch_list({}, [(12, 0)], self.CODES) == "8.0;9.0+PTX"


class TestWarning:
    def test_cpu_only_beside_a_torch_with_cuda(self) -> None:
        message = lif_build.warning(decide("auto", "13.0", None))
        assert message is not None
        for part in (
            "built for the CPU only",
            "torch 2.13.0+test has CUDA 13.0",
            "no CUDA compiler (nvcc) was found",
            "LIF_CUDA_BUILD=cuda pip install --force-reinstall --no-deps .",
        ):
            assert part in message
        with pytest.warns(UserWarning) as caught:
            lif_build.say_aloud(message)
        assert message in str(caught[0].message)

    def test_a_build_without_ninja(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        message = lif_build.ninja_warning()
        assert message is not None and "`uv pip install ninja`" in message
        (tmp_path / "ninja").write_text("#!/bin/sh\n")
        (tmp_path / "ninja").chmod(0o755)
        assert lif_build.ninja_warning() is None

    def test_nothing_to_say_otherwise(self) -> None:
        assert lif_build.warning(decide("auto", None, None)) is None
        assert lif_build.warning(decide("auto", "13.0", TOOLKIT)) is None


@pytest.mark.parametrize(
    ("version", "target"),
    [
        ("2.13.0+cpu", "0x020d000000000000"),
        ("2.11.1", "0x020b000000000000"),
        ("3.0.0a0+git123", "0x0300000000000000"),
    ],
)
def test_target_version(version: str, target: str) -> None:
    assert lif_build.target_version(version) == target


def test_the_oldest_torch_is_that_of_the_build_unless_asked() -> None:
    assert lif_build.oldest_torch({}, "2.13.0+cpu") == "2.13"
    assert lif_build.oldest_torch({"LIF_CUDA_FOR_TORCH": "2.11"}, "2.13.0+cpu") == "2.11"
    assert lif_build.oldest_torch({"LIF_CUDA_FOR_TORCH": ""}, "2.14.1") == "2.14"


@pytest.mark.parametrize("asked", ["2.10", "2.14", "2.11.0", "2", "newest", "0x020b"])
def test_another_oldest_torch_is_refused(asked: str) -> None:
    with pytest.raises(BuildError, match=f"LIF_CUDA_FOR_TORCH must be .* from 2.11 to 2.13.*got '{asked}'"):
        lif_build.oldest_torch({"LIF_CUDA_FOR_TORCH": asked}, "2.13.0+cpu")


class TestBackend:
    def test_an_old_setuptools_is_named(self) -> None:
        lif_backend.check_setuptools("77.0.1")
        with pytest.raises(SystemExit, match="setuptools 77 or newer, and here is 65.5.0. Run `pip install"):
            lif_backend.check_setuptools("65.5.0")

    def test_what_is_asked_of_setuptools_is_checked(self) -> None:
        assert f'"setuptools>={lif_backend.SETUPTOOLS_MINIMUM}"' in (ROOT / "pyproject.toml").read_text()

    @staticmethod
    def install_torch(folder: Path, version: str) -> str:
        info = folder / f"torch-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        return str(folder)

    def test_the_outer_torch_is_appended_last(self, tmp_path: Path) -> None:
        outer = self.install_torch(tmp_path / "outer", "2.13.0+cpu")
        importable = ["isolated"]
        assert lif_backend.make_torch_importable(importable, [str(tmp_path), outer])
        assert importable == ["isolated", outer]

    def test_a_torch_already_importable_is_kept(self, tmp_path: Path) -> None:
        inner = self.install_torch(tmp_path / "inner", "2.11.0")
        outer = self.install_torch(tmp_path / "outer", "2.13.0")
        importable = [inner]
        assert lif_backend.make_torch_importable(importable, [outer])
        assert importable == [inner]

    @pytest.mark.parametrize("version", ["2.10.1", "1.13.1", "unknown"])
    def test_a_torch_too_old_does_not_count(self, tmp_path: Path, version: str) -> None:
        outer = self.install_torch(tmp_path, version)
        importable: list[str] = []
        assert not lif_backend.make_torch_importable(importable, [outer])
        assert importable == []

    def test_torch_is_asked_for_only_where_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lif_backend, "isolated_by_pip", lambda: True)
        for found, requirements in ((True, []), (False, ["torch>=2.11"])):
            monkeypatch.setattr(lif_backend, "_TORCH_FOUND", found)
            assert lif_backend.get_requires_for_build_wheel() == requirements
            assert lif_backend.get_requires_for_build_editable() == requirements
            assert lif_backend.get_requires_for_build_sdist() == []

    @pytest.mark.parametrize(
        ("outer", "said"),
        [
            (None, "no torch>=2.11 can be seen from this build.*`uv pip install --no-build-isolation .`"),
            ("/env/bin/python", "environment of /env/bin/python has no torch>=2.11.*install torch there"),
        ],
    )
    def test_others_than_pip_are_stopped_where_there_is_none(
        self, outer: str | None, said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They would build against one torch and run beside another."""
        monkeypatch.setattr(lif_backend, "isolated_by_pip", lambda: False)
        monkeypatch.setattr(lif_backend, "_OUTER_PYTHON", outer)
        monkeypatch.setattr(lif_backend, "_TORCH_FOUND", False)
        with pytest.raises(SystemExit, match=f"^error: .*{said}"):
            lif_backend.get_requires_for_build_wheel()
        assert lif_backend.get_requires_for_build_sdist() == []

    @pytest.mark.parametrize(
        ("name", "settings", "expected"),
        [
            (
                "build-env-x",
                "command = /my env/bin/python -m venv --without-pip /tmp/x",
                "/my env/bin/python",
            ),
            ("build-env-x", "uv = 0.9", None),
            ("build-env-x", None, None),
            # One's own environment, built in without isolation: what made it is another one.
            (".venv", "command = /usr/bin/python3 -m venv .venv", None),
            (".tmpAbC", "uv = 0.9", None),
        ],
    )
    def test_the_python_around_an_isolated_build(
        self,
        name: str,
        settings: str | None,
        expected: str | None,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        prefix = tmp_path / name
        prefix.mkdir()
        if settings is not None:
            (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\n{settings}\n")
        monkeypatch.setattr(sys, "prefix", str(prefix))
        monkeypatch.setattr(lif_backend, "isolated_by_pip", lambda: False)
        assert lif_backend.outer_python() == expected
        monkeypatch.setattr(lif_backend, "isolated_by_pip", lambda: True)
        assert lif_backend.outer_python() == sys.executable

    def test_python_m_build_finds_the_torch_of_its_own_environment(self, tmp_path: Path) -> None:
        """In an environment made as `build` makes it, with a setuptools that only has the right name."""
        isolated = tmp_path / "build-env-test"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", isolated], check=True)
        hooks = ("prepare_metadata_for_build_wheel", "prepare_metadata_for_build_editable")
        stub = next(isolated.glob("lib/python*/site-packages")) / "setuptools"
        stub.mkdir()
        (stub / "__init__.py").write_text('__version__ = "77.0"\n')
        (stub / "build_meta.py").write_text(
            "".join(f"{name} = None\n" for name in (*hooks, "build_wheel", "build_editable", "build_sdist"))
        )
        script = (
            "import lif_backend\n"
            "from importlib import metadata\n"
            "print(lif_backend.get_requires_for_build_wheel(), metadata.version('torch'))\n"
        )
        done = subprocess.run(
            [isolated / "bin" / "python", "-c", script],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT / "build_backend",
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["[]", metadata.version("torch")]

    def test_setuptools_is_asked_for_by_name(self) -> None:
        done = subprocess.run(
            [sys.executable, "-S", "-c", "import lif_backend"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT / "build_backend",
        )
        assert done.returncode == 1
        assert re.fullmatch(r"error: .*`uv pip install setuptools ninja`.*\n", done.stderr), done.stderr

    def test_finds_the_torch_of_this_environment_without_its_folder_on_the_path(self) -> None:
        # As in pip's isolated build: site-packages is off sys.path, and sysconfig still names it.
        script = (
            "import sys\n"
            "assert sys.path, sys.path\n"
            "import setuptools.build_meta\n"
            "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
            "import lif_backend\n"
            "print(lif_backend.get_requires_for_build_wheel())\n"
            "import torch\n"
        )
        command = [sys.executable, "-W", "ignore", "-c", script]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT / "build_backend"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "[]"


class TestSetup:
    @staticmethod
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", *arguments],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **environ},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_an_impossible_build_ends_with_the_message_alone(self) -> None:
        done = self.run("build_ext", "--dry-run", LIF_CUDA_BUILD="gpu")
        assert done.returncode == 1
        assert done.stderr == ("error: LIF_CUDA_BUILD must be one of auto, cpu, cuda; got 'gpu'\n")

    def test_commands_that_compile_nothing_decide_nothing(self) -> None:
        done = self.run("--version", LIF_CUDA_BUILD="gpu")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(metadata.version("lif_cuda"))
