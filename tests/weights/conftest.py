from tests.stvit.pretrained.conftest import hub, record  # noqa: F401 - the local Hub, for the command's tests too
